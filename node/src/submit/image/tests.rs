//! Recipes of images: what is read, what is filled in, and what is refused.

use super::*;

const LIVE: &str = include_str!("../../../../fixtures/image/live.toml");
const SMALL: &str = include_str!("../../../../fixtures/image/small.toml");

#[test]
fn recipes_are_read_and_misspelt_ones_are_not() {
    let live: Recipe = toml::from_str(LIVE).unwrap();
    assert!(live.formats.contains(&ImageFormat::Iso) && live.base == Base::Apt);
    let tools: Vec<String> = live.tools(Arch::Amd64).unwrap().iter().map(ToString::to_string).collect();
    assert!(tools.contains(&"xorriso".to_owned()) && tools.contains(&"isolinux".to_owned()), "{tools:?}");
    assert!(live.tools(Arch::Arm64).unwrap_err().to_string().contains("amd64 only"));
    let small: Recipe = toml::from_str(SMALL).unwrap();
    assert_eq!(small.base, Base::Required);
    assert!(toml::from_str::<Recipe>(&format!("pakages = []\n{SMALL}")).is_err());
    assert!(toml::from_str::<Recipe>("name = \"x\"\nformats = [\"qcow2\"]\n").is_err());
}

#[test]
fn a_variant_has_its_own_beside_the_recipes() {
    let text = "name = \"shop\"\nformats = [\"tar\"]\npackages = [\"less\"]\n[variants.kiosk]\npackages = [\"our-shop\"]\n\
                hostname = \"k1\"\n[variants.server]\nformats = [\"ext4\"]\nsubproject = \"srv\"\n";
    let recipe: Recipe = toml::from_str(text).unwrap();
    let of = |name: &str| recipe.variant(&FileName::new(name).unwrap());
    let (kiosk, server) = (of("kiosk").unwrap(), of("server").unwrap());
    assert_eq!((kiosk.packages.len(), kiosk.hostname.as_str(), &kiosk.formats), (2, "k1", &recipe.formats));
    assert_eq!(server.subproject.as_ref().map(FileName::as_str), Some("srv"));
    assert!(server.formats == [ImageFormat::Ext4] && server.packages == recipe.packages);
    assert!(of("desktop").unwrap_err().to_string().contains("it has kiosk, server"));
    assert_eq!(day(1_783_764_997), "20260711");
}

#[test]
fn placeholders_are_filled_in_and_unknown_ones_are_named() {
    let known = Placeholders(vec![("NAME", "shop".into()), ("DATE", "20260711".into())]);
    assert_eq!(known.fill("@NAME@ of @DATE@, mail a@b.example").unwrap(), "shop of 20260711, mail a@b.example");
    let error = known.fill("from @REPOSITRY@").unwrap_err().to_string();
    assert!(error.contains("@REPOSITRY@ stands for nothing; known are @NAME@ @DATE@"), "{error}");
}

#[test]
fn a_repository_needs_a_key_that_apt_reads() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("key.asc"), "key").unwrap();
    let around = Surroundings {
        channel: ChannelName::new("main").unwrap(),
        address: "https://a.example/".into(),
        own: Vec::new(),
        now: Timestamp::from_millis(0),
    };
    let read = |text: &str| repository(&toml::from_str(text).unwrap(), folder.path(), &around);
    let (found, address) = read("uri = \"https://b.example\"\nsuite = \"s\"\nkey = \"key.asc\"").unwrap();
    assert_eq!((found.key, address.as_str()), (b"key".to_vec(), "https://b.example"));
    assert!(read("uri = \"https://b.example\"\nsuite = \"s\"\nkey = \"other.asc\"").is_err());
    assert!(read("uri = \"https://b.example\"\nsuite = \"s\"\nkey = \"key\"").is_err());
    assert!(read("uri = \"https://b.example\\nTrusted: yes\"\nsuite = \"s\"\nkey = \"key.asc\"").is_err());
    assert!(read("channel = \"main\"").unwrap_err().to_string().contains("serves no repository of channel main"));
    assert_eq!(around.repository(&around.channel), "https://a.example/repo/main/");
}
