//! Hotkey files of all tools and years. The key is Substrate's well-known development phrase; the
//! files were written by bittensor-wallet 4.1.1 and bittensor-core 0.1.5, or checked by them.

use std::{os::unix::fs::PermissionsExt as _, path::Path};

use chain::{Passwords, Wallet, WalletError, WalletPath, wallet::verify};

const ADDRESS: &str = "5DfhGyQdFobKM8NsWvEeAKk5EQQgYe9AydgJ7rMB6E1EqRzV";
const SEED: &str = "0xfac7959dbfe72f052e5a0c3c8d6530f202b02fd8f9f5ca3580ec8deb7797479e";
const PHRASE: &str = "bottom drive obey lake curtain smoke basket hold race lonely fit walk";
const PASSWORD: &str = "correct horse";

macro_rules! fixture {
    ($name:literal) => {
        include_bytes!(concat!("../fixtures/wallets/", $name)).as_slice()
    };
}

/// Writes a hotkey file into a wallet of its own.
fn wallet_of(folder: &Path, content: &[u8]) -> WalletPath {
    let at = WalletPath {
        folder: folder.to_owned(),
        name: "w".to_owned(),
        hotkey: "h".to_owned(),
    };
    shared::file::write_atomic_private(&at.hotkey_file(), content).unwrap();
    at
}

fn open(content: &[u8], passwords: &Passwords) -> Result<Wallet, WalletError> {
    let folder = tempfile::tempdir().unwrap();
    Wallet::open(&wallet_of(folder.path(), content), passwords)
}

fn variables(variables: &[(&str, &str)]) -> Passwords {
    let owned = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Passwords::new(owned, false)
}

#[test]
fn plain_forms_open_to_the_same_key_and_sign() {
    for (form, content) in [
        ("bittensor-wallet", fixture!("btwallet.json")),
        ("bittensor-core", fixture!("core.json")),
        (
            "an old SDK's, with a space in a key's name",
            fixture!("old.json"),
        ),
        ("a private key only", fixture!("private_key_only.json")),
        ("a raw seed", SEED.as_bytes()),
        ("a raw seed without 0x", &SEED.as_bytes()[2..]),
        ("a mnemonic", PHRASE.as_bytes()),
    ] {
        let wallet =
            open(content, &Passwords::default()).unwrap_or_else(|error| panic!("{form}: {error}"));
        assert_eq!(wallet.hotkey().to_string(), ADDRESS, "{form}");
        let signature = wallet.sign(b"a step record");
        assert!(
            verify(&wallet.hotkey(), b"a step record", &signature),
            "{form}"
        );
        assert!(
            !verify(&wallet.hotkey(), b"another record", &signature),
            "{form}"
        );
    }
}

#[test]
fn an_ed25519_hotkey_is_told_by_its_address() {
    let wallet = open(fixture!("ed25519.json"), &Passwords::default()).unwrap();
    assert_eq!(wallet.kind(), "ed25519");
    assert_eq!(
        wallet.hotkey().to_string(),
        "5DFJF7tY4bpbpcKPJcBTQaKuCDEPCpiz8TRjpmLeTtweqmXL"
    );
    assert!(verify(&wallet.hotkey(), b"x", &wallet.sign(b"x")));
}

#[test]
fn encrypted_forms_open_with_their_password() {
    let passwords = variables(&[("BT_WALLET_PASSWORD", PASSWORD)]);
    for (form, content) in [
        ("ansible vault", fixture!("ansible_vault")),
        ("fernet", fixture!("fernet")),
        ("nacl", fixture!("nacl")),
    ] {
        let wallet = open(content, &passwords).unwrap_or_else(|error| panic!("{form}: {error}"));
        assert_eq!(wallet.hotkey().to_string(), ADDRESS, "{form}");
    }
}

#[test]
fn passwords_come_from_every_place_the_sdks_know() {
    let vault = fixture!("ansible_vault");
    let folder = tempfile::tempdir().unwrap();
    let at = wallet_of(folder.path(), vault);
    let opens = |passwords: &Passwords| Wallet::open(&at, passwords).is_ok();

    let file = folder.path().join("password");
    shared::file::write_atomic_private(&file, b"correct horse\nsecond line\n").unwrap();
    assert!(opens(&variables(&[(
        "BT_WALLET_PASSWORD_FILE",
        file.to_str().unwrap()
    )])));
    assert!(opens(&variables(&[("BT_COLD_PW_W", PASSWORD)])));
    assert!(!opens(&variables(&[("BT_COLD_PW_OTHER", PASSWORD)])));

    // As `save_password_to_environment` of bittensor-core wrote it for this path.
    let at = WalletPath {
        folder: "/home/op".into(),
        name: String::new(),
        hotkey: "hotkey".to_owned(),
    };
    assert_eq!(at.hotkey_file(), Path::new("/home/op/hotkeys/hotkey"));
    let name = "BT_PW__HOME_OP_HOTKEY";
    let passwords = variables(&[(name, "ITstIjI8K2gnIjcsKg==")]);
    let password = passwords.of_file(Path::new("/home/op/hotkey")).unwrap();
    assert_eq!(*password, PASSWORD);
}

#[test]
fn what_does_not_open_says_why_and_no_secret() {
    let error = |content: &[u8], passwords: &Passwords| {
        let error = open(content, passwords).unwrap_err();
        let source = std::error::Error::source(&error).map(ToString::to_string);
        let text = error.to_string();
        let words = text
            .split_whitespace()
            .filter(|word| !word.contains("hotkeys"))
            .collect::<Vec<_>>();
        words.join(" ")
            + &source
                .map(|source| format!(": {source}"))
                .unwrap_or_default()
    };
    let none = Passwords::default();
    let swapped = String::from_utf8_lossy(fixture!("btwallet.json"))
        .replace(ADDRESS, "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY");
    let said = [
        error(fixture!("ansible_vault"), &none),
        error(
            fixture!("ansible_vault"),
            &variables(&[("BT_WALLET_PASSWORD", "wrong")]),
        ),
        error(swapped.as_bytes(), &none),
        error(br#"{"encoded": "x", "encoding": {}}"#, &none),
        error(br#"{"publicKey": "0x01"}"#, &none),
        error(
            format!(r#"{{"ss58Address": "{ADDRESS}"}}"#).as_bytes(),
            &none,
        ),
        error(br#"{"secretSeed": "0xZZ"}"#, &none),
        error(b"\xff\xfe", &none),
        error(b"", &none),
    ];
    insta::assert_snapshot!(said.join("\n"), @r"
    is encrypted and no password was given
    none of the given passwords opens
    holds no usable key: its secret belongs to another address than 5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY, which it names
    holds no usable key: it is an export of polkadot.js; make a key file of it with the Bittensor tools
    holds no usable key: its publicKey is malformed
    holds no usable key: it holds a public key only
    holds no usable key: its secretSeed is malformed
    holds no usable key: it is neither a JSON key file nor a seed in hexadecimal nor a mnemonic
    holds no usable key: it is neither a JSON key file nor a seed in hexadecimal nor a mnemonic
    ");
}

#[test]
fn the_address_is_read_without_a_password_and_debug_shows_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let at = wallet_of(folder.path(), fixture!("ansible_vault"));
    assert_eq!(at.public_hotkey().unwrap(), None);
    let public = format!(r#"{{"ss58Address": "{ADDRESS}"}}"#);
    shared::file::write_atomic(&folder.path().join("w/hotkeys/hpub.txt"), public.as_bytes())
        .unwrap();
    shared::file::write_atomic(&folder.path().join("w/coldkeypub.txt"), public.as_bytes()).unwrap();
    assert_eq!(at.public_hotkey().unwrap().unwrap().to_string(), ADDRESS);
    assert_eq!(at.public_coldkey().unwrap().to_string(), ADDRESS);

    let at = wallet_of(folder.path(), fixture!("btwallet.json"));
    std::fs::set_permissions(at.hotkey_file(), std::fs::Permissions::from_mode(0o644)).unwrap();
    let wallet = Wallet::open(&at, &Passwords::default()).unwrap();
    assert_eq!(
        format!("{wallet:?}"),
        format!("Wallet {{ hotkey: Hotkey({ADDRESS}), .. }}")
    );
    let passwords = variables(&[("BT_WALLET_PASSWORD", PASSWORD)]);
    assert!(!format!("{passwords:?}").contains(PASSWORD));
}

#[test]
fn a_password_that_a_variable_holds_as_it_is_opens_too() {
    let folder = tempfile::tempdir().unwrap();
    let at = wallet_of(folder.path(), fixture!("ansible_vault"));
    let path = at.hotkey_file().display().to_string();
    let name = format!("BT_PW_{}", path.replace(['/', '.'], "_").to_uppercase());
    let wallet = Wallet::open(&at, &variables(&[(&name, PASSWORD)])).unwrap();
    assert_eq!(wallet.hotkey().to_string(), ADDRESS);
}
