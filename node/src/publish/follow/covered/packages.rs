//! Whether an index for apt (`Packages`, deb822(5)) names only files of a manifest.

use std::collections::BTreeSet;

/// Reads an index line by line: apt's parser is lenient, so what ours never writes is refused. `packages` are the paths that it may
/// name.
///
/// # Errors
/// The rule that it breaks.
pub fn check(index: &[u8], packages: &BTreeSet<&str>) -> Result<(), String> {
    let text = std::str::from_utf8(index).map_err(|_| "it is not UTF-8".to_owned())?;
    if text.contains('\r') || text.lines().any(|line| !line.is_empty() && line.trim().is_empty()) {
        return Err("it has lines that apt may read in another way".into());
    }
    for paragraph in text.split("\n\n").filter(|paragraph| !paragraph.trim().is_empty()) {
        // What is indented goes on with the field before.
        let mut names = paragraph.lines().filter(|line| !line.starts_with([' ', '\t'])).filter_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.trim().eq_ignore_ascii_case("Filename").then(|| value.trim())
        });
        let (Some(name), None) = (names.next(), names.next()) else {
            return Err("a paragraph must have one Filename".into());
        };
        if !packages.contains(name) {
            let name: String = name.chars().take(80).collect();
            return Err(format!("it names {name:?}, which is no package of the manifest"));
        }
    }
    Ok(())
}
