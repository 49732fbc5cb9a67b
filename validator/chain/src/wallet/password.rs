//! Where a key file's password comes from: environment, file, prompt, in the order of the SDKs.

use std::{
    collections::BTreeMap,
    fmt, io,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use shared::file;
use zeroize::Zeroizing;

type Password = Zeroizing<String>;

const MAX_FILE: u64 = 4096;

#[derive(Default)]
pub struct Passwords {
    variables: BTreeMap<String, Password>,
    prompt: bool,
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passwords")
            .field("variables", &self.variables.keys())
            .finish_non_exhaustive()
    }
}

impl Passwords {
    /// Keeps the variables that may hold a password; `prompt` allows asking on the terminal.
    pub fn new(environment: impl IntoIterator<Item = (String, String)>, prompt: bool) -> Self {
        let variables = environment
            .into_iter()
            .filter(|(name, _)| name.starts_with("BT_"))
            .map(|(name, value)| (name, Password::new(value)))
            .collect();
        Self { variables, prompt }
    }

    /// Returns the passwords to try on a key file, the likeliest first; the prompt comes last.
    pub(super) fn candidates<'a>(
        &'a self,
        path: &'a Path,
        wallet: &'a str,
    ) -> impl Iterator<Item = io::Result<Password>> + 'a {
        let given = [
            self.of_file(path),
            self.plain_of_file(path),
            self.of_coldkey(wallet),
            self.variables.get("BT_WALLET_PASSWORD").cloned(),
        ];
        let from_file = self
            .variables
            .get("BT_WALLET_PASSWORD_FILE")
            .map(|file| read_first_line(file));
        let prompt = self.prompt.then_some(()).into_iter().map(|()| {
            let question = format!("Password of {}: ", path.display());
            rpassword::prompt_password(question).map(Password::new)
        });
        given
            .into_iter()
            .flatten()
            .map(Ok)
            .chain(from_file)
            .chain(prompt)
    }

    /// Returns what `BT_PW_<PATH>` holds for a key file: base64 of its password, XORed with the
    /// variable's own name.
    pub fn of_file(&self, path: &Path) -> Option<Password> {
        let name = variable_of(path);
        let masked = Zeroizing::new(
            STANDARD
                .decode(self.variables.get(&name)?.as_bytes())
                .ok()?,
        );
        let mask = name.as_bytes().iter().cycle();
        let password = Zeroizing::new(
            masked
                .iter()
                .zip(mask)
                .map(|(a, b)| a ^ b)
                .collect::<Vec<_>>(),
        );
        str::from_utf8(&password)
            .ok()
            .map(|password| Password::new(password.to_owned()))
    }

    /// Returns what `BT_PW_<PATH>` holds, for those who write the password there as it is.
    fn plain_of_file(&self, path: &Path) -> Option<Password> {
        self.variables.get(&variable_of(path)).cloned()
    }

    /// `BT_COLD_PW_...<WALLET>`: the plain password.
    fn of_coldkey(&self, wallet: &str) -> Option<Password> {
        let ending = wallet.to_uppercase();
        let found = self.variables.iter().find(|(name, _)| {
            let name = name.to_uppercase();
            name.starts_with("BT_COLD_PW_") && name.ends_with(&ending)
        });
        found.map(|(_, password)| password.clone())
    }
}

/// Returns the name of the variable that holds a key file's password.
fn variable_of(path: &Path) -> String {
    let path = path.display().to_string();
    let path = path.replace(['/', '.'], "_").to_uppercase();
    format!("BT_PW_{path}")
}

fn read_first_line(path: &str) -> io::Result<Password> {
    let path = PathBuf::from(path);
    let missing = || {
        io::Error::new(
            io::ErrorKind::NotFound,
            format!("there is no {}", path.display()),
        )
    };
    let bytes = file::read_limited(&path, MAX_FILE)
        .map_err(io::Error::other)?
        .ok_or_else(missing)?;
    let bytes = Zeroizing::new(bytes);
    let text = str::from_utf8(&bytes).map_err(io::Error::other)?;
    Ok(Password::new(
        text.lines().next().unwrap_or_default().to_owned(),
    ))
}
