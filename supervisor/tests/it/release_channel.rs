//! Releases from a server: listed, downloaded, checked, run; a forged one is refused.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    sync::{Arc, Mutex},
};

use crate::workbench::{Bench, text};
use flate2::{Compression, write::GzEncoder};
use sha2::{Digest, Sha256};

type Pages = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

/// Serves pages until the test process ends.
fn serve(pages: &Pages) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let pages = Arc::clone(pages);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let _ = answer(&stream, &pages);
        }
    });
    address
}

fn answer(mut stream: &TcpStream, pages: &Pages) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let path = request.split(' ').nth(1).unwrap_or_default();
    let path = path.split('?').next().unwrap_or_default();
    let page = pages.lock().unwrap().get(path).cloned();
    let (status, body) = page.map_or(("404 Not Found", Vec::new()), |page| ("200 OK", page));
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    )?;
    stream.write_all(&body)
}

/// A bench with a release server, and a key that signs.
struct Shop {
    bench: Bench,
    pages: Pages,
    address: SocketAddr,
    listed: Mutex<Vec<serde_json::Value>>,
    /// SHA-256 of what is served, by file name.
    archives: Mutex<BTreeMap<String, String>>,
    /// Of the newest list of releases.
    number: Mutex<u64>,
}

const KEYS: [&str; 3] = ["key", "key-2", "key-3"];

impl Shop {
    fn new() -> Self {
        let bench = Bench::new();
        let pages = Pages::default();
        let address = serve(&pages);
        let shop = Self {
            bench,
            pages,
            address,
            listed: Mutex::default(),
            archives: Mutex::default(),
            number: Mutex::default(),
        };
        for key in KEYS {
            shop.sign_with(key, &["--new-key"]);
        }
        shop.publish("0.1.0", "", true);
        shop
    }

    fn key(&self, name: &str) -> PathBuf {
        self.bench.path().join(name)
    }

    fn sign_with(&self, key: &str, args: &[&str]) {
        let key = self.key(key);
        let line = [&["sign", "--key", key.to_str().unwrap()], args].concat();
        let output = self.bench.command(&line);
        assert!(output.status.success(), "{}", text(&output));
    }

    /// Signs a list of what there is with two of the keys, and serves it.
    fn list(&self, edit: impl FnOnce(&mut serde_json::Value)) {
        let mut number = self.number.lock().unwrap();
        *number += 1;
        let mut list = serde_json::json!({
            "format": 1,
            "repository": "us/app",
            "number": *number,
            "expires": "2999-01-01T00:00:00Z",
            "archives": *self.archives.lock().unwrap(),
        });
        edit(&mut list);
        let path = self.bench.path().join("release-list.json");
        crate::workbench::write(&path, &list.to_string());
        for key in ["key", "key-3"] {
            self.sign_with(key, &["--list", path.to_str().unwrap()]);
        }
        let bytes = fs::read(&path).unwrap();
        let mut pages = self.pages.lock().unwrap();
        pages.insert("/release-list.json".into(), bytes);
    }

    fn served_list(&self) -> Vec<u8> {
        self.pages.lock().unwrap()["/release-list.json"].clone()
    }

    /// Builds, packs, signs and lists a release.
    fn publish(&self, version: &str, behavior: &str, signed: bool) {
        self.bench.release(version, behavior);
        let built = shared::process::blocking_command("cargo")
            .args(["build", "--offline", "--target-dir", "../built"])
            .env("BUILD_COMMIT", version)
            .current_dir(self.bench.work())
            .output()
            .unwrap();
        assert!(built.status.success(), "{}", text(&built));
        let name = format!("app-{version}-{}.tar.gz", self_update::get_target());
        let path = self.bench.path().join(&name);
        let mut archive = tar::Builder::new(GzEncoder::new(
            fs::File::create(&path).unwrap(),
            Compression::fast(),
        ));
        archive
            .append_path_with_name(self.bench.path().join("built/debug/app"), "app")
            .unwrap();
        archive.into_inner().unwrap().finish().unwrap();
        let before = fs::read(&path).unwrap();
        self.sign_with("key", &[path.to_str().unwrap()]);
        let sum = path.with_added_extension("sha256");
        if !signed {
            crate::workbench::write_bytes(&path, &before);
        }
        let digest = hex::encode(Sha256::digest(fs::read(&path).unwrap()));
        self.archives.lock().unwrap().insert(name.clone(), digest);
        self.list(|_| {});
        let mut pages = self.pages.lock().unwrap();
        pages.insert(format!("/{name}"), fs::read(&path).unwrap());
        pages.insert(format!("/{name}.sha256"), fs::read(&sum).unwrap());
        let url = format!("http://{}/{name}", self.address);
        let list_url = format!("http://{}/release-list.json", self.address);
        self.listed.lock().unwrap().push(serde_json::json!({
            "tag_name": format!("v{version}"),
            "name": format!("Release {version}"),
            "created_at": "2026-01-01T00:00:00Z",
            "body": "",
            "html_url": url,
            "assets": [
                {"name": name, "url": url, "browser_download_url": url},
                {"name": "release-list.json", "url": list_url, "browser_download_url": list_url},
            ],
        }));
        let list = serde_json::to_vec(&*self.listed.lock().unwrap()).unwrap();
        pages.insert("/repos/us/app/releases".into(), list);
    }

    fn flags(&self) -> Vec<String> {
        let flags = [
            "--channel",
            "release",
            "--release-repo",
            "us/app",
            "--release-api",
        ];
        let mut flags: Vec<String> = flags.map(str::to_owned).to_vec();
        flags.push(format!("http://{}", self.address));
        flags.push("--release-key".into());
        let keys = KEYS.map(|name| format!("{}.pub", self.key(name).display()));
        flags.push(keys.join(","));
        flags
    }
}

#[test]
fn signed_releases_are_taken_and_forged_ones_are_not() {
    let shop = Shop::new();
    let flags = shop.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let _running = shop.bench.start_and_settle(&flags);
    shop.bench.assert_runs(&["0.1.0"]);
    shop.publish("0.1.1", "", true);
    let report = shop.bench.update();
    assert_eq!(report.update.accepted.unwrap().commit, "v0.1.1");

    shop.publish("0.2.0", "", true);
    let report = shop.bench.update();
    assert_eq!(
        report.update.problem, None,
        "an incompatible version is not offered"
    );

    shop.publish("0.1.2", "", false);
    let report = shop.bench.update();
    let problem = report.update.problem.unwrap();
    assert!(problem.contains("is not signed by"), "{problem}");
    let history = shop.bench.command(&["history", "--json"]);
    let history: serde_json::Value = serde_json::from_slice(&history.stdout).unwrap();
    let [.., good, forged] = history.as_array().unwrap().as_slice() else {
        panic!("{history}");
    };
    assert_eq!(
        (&good["commit"], &forged["commit"]),
        (&"v0.1.1".into(), &"v0.1.2".into())
    );
    assert!(
        good["signer"].is_string() && forged["signer"].is_null(),
        "{history}"
    );

    // An honest archive under another version's name is a way to go back unnoticed.
    shop.publish("0.1.3", "", true);
    let target = self_update::get_target();
    {
        let mut pages = shop.pages.lock().unwrap();
        for suffix in ["", ".sha256"] {
            let old = pages[&format!("/app-0.1.0-{target}.tar.gz{suffix}")].clone();
            pages.insert(format!("/app-0.1.3-{target}.tar.gz{suffix}"), old);
        }
    }
    let report = shop.bench.update();
    let problem = report.update.problem.unwrap();
    assert!(
        problem.contains("not the one in the signed list"),
        "{problem}"
    );

    shop.publish("0.1.4", "crash", true);
    let report = shop.bench.update();
    assert_eq!(report.update.accepted.unwrap().commit, "v0.1.1");
    shop.bench
        .assert_runs(&["0.1.0", "0.1.1", "0.1.4", "0.1.1"]);
    shop.publish("0.1.5", "", true);
    assert_eq!(
        shop.bench.update().update.accepted.unwrap().commit,
        "v0.1.5"
    );
}

#[test]
fn without_a_key_nothing_is_downloaded() {
    let shop = Shop::new();
    let flags = shop.flags();
    let flags: Vec<&str> = flags.iter().take(6).map(String::as_str).collect();
    let output = shop.bench.run(&flags);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).contains("--release-key"), "{}", text(&output));
}

#[test]
fn a_list_that_is_withdrawn_from_old_or_expired_holds_nodes_where_they_are() {
    let shop = Shop::new();
    let flags = shop.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let running = shop.bench.start_and_settle(&flags);
    let old = shop.served_list();
    let problem = || shop.bench.update().update.problem.unwrap_or_default();

    // Before anybody has switched, and after.
    shop.publish("0.1.1", "", true);
    let withdraw = |version: &str| {
        shop.list(|list| list["withdrawn"] = serde_json::json!({version: "it loses weights"}));
    };
    withdraw("0.1.1");
    let report = shop.bench.update();
    assert_eq!(report.update.accepted.unwrap().commit, "v0.1.0");
    shop.publish("0.1.2", "", true);
    let report = shop.bench.update();
    assert_eq!(report.update.accepted.unwrap().commit, "v0.1.2");
    withdraw("0.1.2");
    let said = problem();
    assert!(
        said.contains("v0.1.2 is withdrawn: it loses weights"),
        "{said}"
    );

    // A server that shows what it once had.
    let newest = shop.served_list();
    let serve = |list: &[u8]| {
        let mut pages = shop.pages.lock().unwrap();
        pages.insert("/release-list.json".into(), list.to_vec());
    };
    serve(&old);
    let said = problem();
    assert!(said.contains("it is an old one"), "{said}");
    shop.list(|list| list["expires"] = "2020-01-01T00:00:00Z".into());
    let said = problem();
    assert!(said.contains("expired on 2020-01-01"), "{said}");

    // Also where all of this child's state is gone.
    running.signal(nix::sys::signal::Signal::SIGTERM);
    running.ended();
    fs::remove_dir_all(shop.bench.home.path()).unwrap();
    serve(&old);
    let _running = shop.bench.start(&flags);
    let report = shop
        .bench
        .until("it is refused", |report| report.update.problem.is_some());
    assert!(report.update.problem.unwrap().contains("it is an old one"));
    assert_eq!(shop.bench.children(), []);
    serve(&newest);
    shop.publish("0.1.3", "", true);
    let report = shop.bench.update();
    assert_eq!(report.update.accepted.unwrap().commit, "v0.1.3");
}
