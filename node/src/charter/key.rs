//! Keys as people write them: in our own form, or as the line of an OpenSSH `.pub` file.

use protocol::{PublicKey, ssh};
use serde::{Deserialize, Deserializer, de};

fn parse(text: &str) -> Result<PublicKey, String> {
    if ssh::Key::is_line(text) {
        return ssh::Key::parse(text).map(|key| key.public).map_err(|error| error.to_string());
    }
    let hint = "a key is 64 lower-case hexadecimal digits or the line of an OpenSSH .pub file";
    text.parse().map_err(|error| format!("{error}; {hint}"))
}

/// Reads one key.
///
/// # Errors
/// When it is of neither form.
pub(super) fn one<'de, D: Deserializer<'de>>(from: D) -> Result<PublicKey, D::Error> {
    parse(&String::deserialize(from)?).map_err(de::Error::custom)
}

/// Reads a list of keys.
///
/// # Errors
/// When one is of neither form.
pub(super) fn all<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<PublicKey>, D::Error> {
    Vec::<String>::deserialize(from)?.iter().map(|text| parse(text).map_err(de::Error::custom)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Sample {
        #[serde(deserialize_with = "one")]
        key: PublicKey,
        #[serde(deserialize_with = "all")]
        keys: Vec<PublicKey>,
    }

    #[test]
    fn a_key_is_read_in_both_forms_and_another_type_is_refused_in_words() {
        let line = include_str!("../../../fixtures/ssh/ed25519.pub").trim();
        let key = ssh::Key::parse(line).unwrap().public;
        let read = |text: &str| toml::from_str::<Sample>(&format!("key = {text:?}\nkeys = [{text:?}, \"{key}\"]"));
        for text in [line, &key.to_string()] {
            let sample = read(text).unwrap();
            assert_eq!((sample.key, sample.keys), (key, vec![key, key]));
        }
        let why = |text: &str| read(text).err().unwrap().to_string();
        let rsa = include_str!("../../../fixtures/ssh/rsa.pub").trim();
        assert!(why(rsa).contains("type ssh-rsa cannot sign here; use one of type ssh-ed25519"), "{}", why(rsa));
        assert!(why("hello").contains("or the line of an OpenSSH .pub file"), "{}", why("hello"));
    }
}
