//! The smallest `.deb` that dpkg installs. Nothing in it is packed, so that it is text, as the contents of samples are.

/// Gives a package of these words, with `salt` in its one file.
pub fn deb((name, version, arch): (&str, &str, &str), salt: &str) -> String {
    let control = format!(
        "Package: {name}\nVersion: {version}\nArchitecture: {arch}\nMaintainer: nobody <nobody@localhost>\n\
         Description: a test\n"
    );
    let (control, data) = (tar("./control", &control), tar(&format!("./usr/share/doc/{name}/salt"), salt));
    ["debian-binary", "control.tar", "data.tar"]
        .into_iter()
        .zip(["2.0\n", &control, &data])
        .fold("!<arch>\n".to_owned(), |ar, (name, content)| ar + &member(name, content))
}

fn member(name: &str, content: &str) -> String {
    let odd = if content.len() % 2 == 1 { "\n" } else { "" };
    format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n{content}{odd}", 0, 0, 0, 100_644, content.len())
}

/// Writes a ustar archive with the folders of a path and one file.
fn tar(path: &str, content: &str) -> String {
    let ends = path.match_indices('/').map(|(at, _)| at + 1);
    let folders: String = ends.map(|end| header(&path[..end], ("0000755", "00000000000", '5'))).collect();
    let size = format!("{:011o}", content.len());
    let padding = content.len().next_multiple_of(512) - content.len() + 1024;
    folders + &header(path, ("0000644", &size, '0')) + content + &"\0".repeat(padding)
}

fn header(path: &str, (mode, size, kind): (&str, &str, char)) -> String {
    let owner = "0000000\0";
    let with = |sum: &str| {
        let head = format!(
            "{path:\0<100}{mode}\0{owner}{owner}{size}\000000000000\0{sum}{kind}{:\0<100}ustar\000{:\0<247}",
            "", ""
        );
        format!("{head:\0<512}")
    };
    let sum: u32 = with("        ").bytes().map(u32::from).sum();
    with(&format!("{sum:06o}\0 "))
}
