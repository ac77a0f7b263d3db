//! No file says anything about the machine that it was written on: neither where it lies there, nor which package
//! registries that machine is configured for.

use std::{collections::BTreeSet, env, fs, path::PathBuf};

use super::{Tree, check, root};

/// Folders that every machine has.
const EVERYWHERE: [&str; 10] = ["/", "/home", "/root", "/usr", "/srv", "/opt", "/tmp", "/var", "/mnt", "/media"];
/// The default registry of cargo, as Cargo.lock writes it, and the public sites of the crates.
const PUBLIC: [&str; 2] = ["github.com", "crates.io"];

#[test]
fn no_file_names_a_folder_of_this_machine() {
    let folders: Vec<String> = root()
        .ancestors()
        .map(|folder| folder.to_string_lossy().into_owned())
        .filter(|folder| !EVERYWHERE.contains(&folder.as_str()))
        .map(|folder| format!("{folder}/"))
        .collect();
    let tree = Tree::read();
    let named = tree.0.iter().filter(|file| folders.iter().any(|folder| begins_a_path(&file.text, folder)));
    check("a path of this machine", named.map(|file| file.path.clone()));
}

/// A path that only contains the folder's name further inside is another one.
fn begins_a_path(text: &str, folder: &str) -> bool {
    text.match_indices(folder)
        .any(|(at, _)| !text[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || "._-}>/*$".contains(c)))
}

#[test]
fn paths_are_told_from_parts_of_paths() {
    assert!(begins_a_path("see /place/of/mine", "/place/"));
    assert!(begins_a_path("\"/place/x\"", "/place/"));
    assert!(!begins_a_path("some/place/x", "/place/"));
    assert!(!begins_a_path("{root}/place/x", "/place/"));
}

#[test]
fn no_file_names_a_package_registry_of_this_machine() {
    let hosts = registries();
    let tree = Tree::read();
    let named = tree.0.iter().filter(|file| hosts.iter().any(|host| file.text.contains(host.as_str())));
    // The host itself is not printed: a test's log is a file too.
    check("a package registry of this machine", named.map(|file| file.path.clone()));
}

/// The hosts that apt, pip and cargo are configured for here.
fn registries() -> BTreeSet<String> {
    let home = env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let cargo = env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from);
    let mut texts: Vec<PathBuf> = vec![
        "/etc/apt/sources.list".into(),
        "/etc/pip.conf".into(),
        home.join(".pip/pip.conf"),
        home.join(".config/pip/pip.conf"),
        cargo.join("config.toml"),
        cargo.join("config"),
    ];
    let listed = fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten();
    texts.extend(listed.map(|entry| entry.path()));
    // A machine has few of these files; what is not there names nothing.
    let texts = texts.into_iter().filter_map(|path| fs::read_to_string(path).ok());
    let variables = ["PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"].into_iter().filter_map(|name| env::var(name).ok());
    texts.chain(variables).flat_map(|text| hosts(&text)).collect()
}

/// The hosts of all URLs in a text.
fn hosts(text: &str) -> Vec<String> {
    let ends = |c: char| c.is_whitespace() || "/\"'>,]".contains(c);
    let authorities = text.split("://").skip(1).map(|rest| rest.split(ends).next().unwrap_or_default());
    let hosts = authorities.map(|authority| {
        let host = authority.rsplit('@').next().unwrap_or_default();
        host.split(':').next().unwrap_or_default().to_owned()
    });
    let public = |host: &str| PUBLIC.iter().any(|p| host == *p || host.ends_with(&format!(".{p}")));
    hosts.filter(|host| host.contains('.') && !public(host)).collect()
}

#[test]
fn hosts_are_found_in_urls() {
    let text =
        "deb [trusted=no] https://user:word@archive.invalid:8080/debian stable main\nindex = \"sparse+http://x.y/z\"";
    assert_eq!(hosts(text), ["archive.invalid", "x.y"]);
    assert!(hosts("https://github.com/a and https://index.crates.io/").is_empty());
}
