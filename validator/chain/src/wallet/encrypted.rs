//! Encrypted key files: NaCl secret boxes, Ansible vaults and Fernet tokens.

use std::num::NonZeroU32;

use aes::{
    Aes256,
    cipher::{KeyIvInit as _, StreamCipher as _},
};
use argon2::{Algorithm, Argon2, Params, Version};
use base64::{Engine as _, engine::general_purpose::URL_SAFE};
use crypto_secretbox::{KeyInit as _, XSalsa20Poly1305, aead::Aead as _};
use ctr::Ctr128BE;
use ring::{hmac, pbkdf2};
use zeroize::Zeroizing;

use super::keyfile::Bytes;

/// The Bittensor tools use one salt for all.
const NACL_SALT: [u8; 16] = *b"\x13q\x83\xdf\xf1Z\t\xbc\x9c\x90\xb5Q\x879\xe9\xb1";
const FERNET_SALT: &[u8] = b"Iguesscyborgslikemyselfhaveatendencytobeparanoidaboutourorigins";
const FERNET_ROUNDS: NonZeroU32 = NonZeroU32::new(10_000_000).unwrap();

/// Ansible's `VaultAES256` (`lib/ansible/parsing/vault/__init__.py`): PBKDF2 with this many rounds gives the key of
/// the cipher, the key of the MAC and the first counter, in this order.
const VAULT_ROUNDS: NonZeroU32 = NonZeroU32::new(10_000).unwrap();
const VAULT_KEY: usize = 32;
const VAULT_COUNTER: usize = 16;

/// libsodium's "sensitive" limits: 8 passes over 512 MiB.
const ARGON2_PASSES: u32 = 8;
const ARGON2_KIB: u32 = 512 << 10;

const NACL_MARK: &[u8] = b"$NACL";
const NONCE: usize = 24;

/// How a key file is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encryption {
    Nacl,
    AnsibleVault,
    Fernet,
}

impl Encryption {
    /// Tells the form by the first bytes; `None` means not encrypted.
    pub(super) fn of(content: &[u8]) -> Option<Self> {
        [
            (NACL_MARK, Self::Nacl),
            (b"$ANSIBLE_VAULT", Self::AnsibleVault),
            (b"gAAAAA", Self::Fernet),
        ]
        .into_iter()
        .find_map(|(mark, form)| content.starts_with(mark).then_some(form))
    }

    /// Decrypts; `None` means that the password is wrong or the file damaged.
    pub(super) fn decrypt(self, content: &[u8], password: &str) -> Option<Bytes> {
        let plain = match self {
            Self::Nacl => nacl(content, password),
            Self::AnsibleVault => ansible_vault(content, password),
            Self::Fernet => fernet(content, password),
        };
        plain.map(Bytes::new)
    }
}

fn nacl(content: &[u8], password: &str) -> Option<Vec<u8>> {
    let content = content.strip_prefix(NACL_MARK)?;
    let (nonce, sealed) = content.split_first_chunk::<NONCE>()?;
    let params = Params::new(ARGON2_KIB, ARGON2_PASSES, 1, Some(32)).ok()?;
    let mut key = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2i, Version::V0x13, params)
        .hash_password_into(password.as_bytes(), &NACL_SALT, &mut *key)
        .ok()?;
    XSalsa20Poly1305::new((&*key).into())
        .decrypt(nonce.into(), sealed)
        .ok()
}

/// Format 1.1 and 1.2: a header line, then the hex of three lines of hex, which are salt, MAC and ciphertext.
fn ansible_vault(content: &[u8], password: &str) -> Option<Vec<u8>> {
    let (header, body) = str::from_utf8(content).ok()?.split_once('\n')?;
    let mut header = header.trim_end().split(';').skip(1);
    let (version, cipher) = (header.next()?, header.next()?);
    if !matches!(version, "1.1" | "1.2") || cipher != "AES256" {
        return None;
    }
    let body: String = body.split_whitespace().collect();
    let fields = String::from_utf8(hex::decode(body).ok()?).ok()?;
    let mut fields = fields.split('\n').map(hex::decode);
    let mut field = || fields.next()?.ok();
    let (salt, mac, mut text) = (field()?, field()?, field()?);

    let mut keys = Zeroizing::new([0; 2 * VAULT_KEY + VAULT_COUNTER]);
    let hash = pbkdf2::PBKDF2_HMAC_SHA256;
    pbkdf2::derive(hash, VAULT_ROUNDS, &salt, password.as_bytes(), &mut *keys);
    let (key, rest) = keys.split_at(VAULT_KEY);
    let (mac_key, counter) = rest.split_at(VAULT_KEY);
    hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, mac_key), &text, &mac).ok()?;
    Ctr128BE::<Aes256>::new_from_slices(key, counter)
        .ok()?
        .apply_keystream(&mut text);
    // PKCS #7: the last byte says how many bytes were added.
    let padding = usize::from(*text.last()?);
    text.truncate(text.len().checked_sub(padding)?);
    Some(text)
}

fn fernet(content: &[u8], password: &str) -> Option<Vec<u8>> {
    let token = str::from_utf8(content).ok()?.trim();
    let mut key = Zeroizing::new([0; 32]);
    let hash = pbkdf2::PBKDF2_HMAC_SHA256;
    pbkdf2::derive(
        hash,
        FERNET_ROUNDS,
        FERNET_SALT,
        password.as_bytes(),
        &mut *key,
    );
    let key = Zeroizing::new(URL_SAFE.encode(*key));
    fernet::Fernet::new(&key)?.decrypt(token).ok()
}
