//! Paths, what a size needs, proofs read out of tiles, and tiles that lie.

use std::sync::LazyLock;

use super::*;
use crate::{
    log::tree::{check_consistency, check_inclusion},
    testing::log::Memory,
};

/// The specification's example.
const SIZE: u64 = 70_000;

static TREE: LazyLock<Memory> = LazyLock::new(|| Memory::sized(SIZE));

fn entry(at: u64) -> &'static [u8] {
    &TREE.entries()[at as usize]
}

fn fetch(tiles: BTreeSet<Tile>) -> BTreeMap<Tile, Vec<u8>> {
    tiles.into_iter().map(|tile| (tile, TREE.tile(tile))).collect()
}

fn head(size: u64) -> Head {
    TREE.head(size)
}

fn resource(text: &str) -> Resource {
    let resource: Resource = text.parse().unwrap();
    assert_eq!(resource.to_string(), text);
    resource
}

fn tile(text: &str) -> Tile {
    let Resource::Tile(tile) = resource(&format!("tile/{text}")) else { panic!("{text} is no tile") };
    tile
}

#[test]
fn a_path_has_one_spelling() {
    assert_eq!(resource("checkpoint"), Resource::Checkpoint);
    assert_eq!(resource("tile/entries/x001/x234/067"), Resource::Entries(Slice { index: 1_234_067, width: 256 }));
    assert_eq!(
        resource("tile/0/273.p/112"),
        Resource::Tile(Tile { level: 0, slice: Slice { index: 273, width: 112 } })
    );
    for bad in [
        "",
        "tile",
        "tile/0",
        "tile/0/",
        "tile/8/000",
        "tile/00/000",
        "tile/-1/000",
        "tile/0/1",
        "tile/0/0001",
        "tile/0/x000/001",
        "tile/0/001/002",
        "tile/0/x001/x002",
        "tile/0/+01",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/01",
        "tile/0/000.p/1/",
        "tile/0/000.p/",
        "tile/0/xx01/002",
        "tile/0/000.p/1.p/1",
        "tile/entries/x999/x999/x999/x999/x999/x999/999",
        "/checkpoint",
        "checkpoint/",
        "tile/0/../../checkpoint",
    ] {
        assert!(matches!(bad.parse::<Resource>(), Err(TileError::Path(_))), "{bad}");
    }
}

/// The example of the specification.
#[test]
fn a_log_of_seventy_thousand() {
    let all: Vec<Tile> = Tile::added(0, SIZE).collect();
    let of = |level: u8, full: bool| all.iter().filter(|t| t.level == level && t.slice.is_full() == full).count();
    assert_eq!([of(0, true), of(0, false), of(1, true), of(1, false), of(2, false)], [273, 1, 1, 1, 1]);
    assert_eq!(all.len(), 277);
    let partial: Vec<String> = Tile::partial(SIZE).map(|tile| tile.to_string()).collect();
    assert_eq!(partial, ["0/273.p/112", "1/001.p/17", "2/000.p/1"]);
    assert_eq!(bundles_added(0, SIZE).count(), 274);
    let partial: Vec<String> = Tile::partial(256).map(|tile| tile.to_string()).collect();
    assert_eq!(partial, ["1/000.p/1"], "a full tile and a partial one of width 1 above it");
    assert_eq!(Tile::partial(0).count() + Tile::added(5, 5).count() + bundles_added(5, 5).count(), 0);
    assert_eq!(Tile::partial(SIZE_MAX).count(), 8);
}

/// What a server asks before it reads anything.
#[test]
fn only_what_is_there_is_served() {
    for (path, expected) in [
        ("checkpoint", true),
        ("tile/0/000", true),
        ("tile/0/273.p/112", true),
        ("tile/0/273.p/3", true),
        ("tile/0/273.p/113", false),
        ("tile/0/273", false),
        ("tile/1/001.p/17", true),
        ("tile/1/001.p/18", false),
        ("tile/2/000.p/1", true),
        ("tile/3/000.p/1", false),
        ("tile/entries/273.p/112", true),
        ("tile/entries/274.p/1", false),
        ("tile/entries/x036/x028/x797/x018/x963/967", false),
    ] {
        assert_eq!(resource(path).is_within(SIZE), expected, "{path}");
    }
    assert!(resource("checkpoint").is_within(0) && !resource("tile/0/000.p/1").is_within(0));
    assert!(resource("tile/0/000").is_immutable() && !resource("checkpoint").is_immutable());
    assert_eq!(resource("checkpoint").content_type(), "text/plain; charset=utf-8");
    assert_eq!(resource("tile/entries/000").content_type(), "application/octet-stream");
    let partial = tile("0/000.p/7");
    assert_eq!(partial.cut(&TREE.tile(tile("0/000"))), Ok(&TREE.tile(partial)[..]));
    assert!(partial.cut(&TREE.tile(partial)).is_err());
}

/// Writing what was added each time leaves the same files as writing all at once.
#[test]
fn growing_leaves_nothing_out() {
    let mut written = BTreeSet::new();
    let mut size = 0;
    for step in [1, 2, 253, 1, 255, 300, 4000, 60_000, 5188] {
        written.extend(Tile::added(size, size + step));
        size += step;
    }
    assert_eq!(size, SIZE);
    let missing: Vec<Tile> = Tile::added(0, SIZE).filter(|tile| !written.contains(tile)).collect();
    assert_eq!(missing, []);
}

#[test]
fn proofs_are_read_out_of_tiles() {
    for size in [1, 2, 255, 256, 257, 511, 512, 65_535, 65_536, 65_537, SIZE] {
        for index in [0, 1, size / 2, size - 1].into_iter().filter(|index| *index < size) {
            let tiles = fetch(for_inclusion(index, size).unwrap());
            assert!(tiles.len() <= 6, "{index} of {size} needs {} tiles", tiles.len());
            let view = View::new(head(size), &tiles).unwrap();
            let proof = tree::inclusion(index, size, &view).unwrap();
            assert_eq!(check_inclusion(tree::leaf(entry(index)), index, head(size), &proof), Ok(()));
        }
        for old in [0, 1, size / 3, size - 1, size] {
            let view = View::new(head(size), &fetch(for_consistency(old, size).unwrap())).unwrap();
            let proof = tree::consistency(old, size, &view).unwrap();
            assert_eq!(check_consistency(head(old), head(size), &proof), Ok(()), "{old} to {size}");
        }
    }
}

#[test]
fn a_view_reads_nothing_that_is_not_there() {
    let view = View::new(head(SIZE), &fetch(for_inclusion(7, SIZE).unwrap())).unwrap();
    assert_eq!(view.hash(Subtree { height: 0, index: 300 }), Err(TileError::Missing(tile("0/001"))));
    let beyond = |index| Err(TileError::Proof(ProofError::Index { index, size: SIZE }));
    assert_eq!(view.hash(Subtree { height: 0, index: SIZE }), beyond(SIZE));
    assert_eq!(view.hash(Subtree { height: 1, index: u64::MAX }), beyond(u64::MAX));
    // Half of it is within the tree; it is not complete.
    assert_eq!(view.hash(Subtree { height: 5, index: SIZE >> 5 }), beyond(SIZE >> 5));
    assert_eq!(View::new(Head::empty(), &BTreeMap::new()).unwrap().head(), Head::empty());
}

/// Invariant: whatever byte of whatever tile is changed, no view comes of it.
#[test]
fn every_tile_is_checked() {
    let tiles = fetch(for_inclusion(70, SIZE).unwrap());
    assert!(View::new(head(SIZE), &tiles).is_ok());
    for (name, bytes) in &tiles {
        for at in [0, bytes.len() / 2, bytes.len() - 1] {
            let mut changed = tiles.clone();
            changed.get_mut(name).unwrap()[at] ^= 0x10;
            let refused = View::new(head(SIZE), &changed).unwrap_err();
            let expected =
                if name.slice.is_full() { TileError::Foreign(*name) } else { TileError::Root { size: SIZE } };
            assert_eq!(refused, expected);
        }
        let mut shorter = tiles.clone();
        shorter.get_mut(name).unwrap().pop();
        assert_eq!(
            View::new(head(SIZE), &shorter).unwrap_err(),
            TileError::Length { tile: *name, got: bytes.len() - 1 }
        );
        let mut without = tiles.clone();
        without.remove(name);
        let nothing_hangs_on_it = name.to_string() == "0/000";
        assert_eq!(View::new(head(SIZE), &without).is_ok(), nothing_hangs_on_it, "{name}");
    }
    let mut with_impossible = tiles.clone();
    with_impossible.insert(tile("7/000"), vec![0; TILE_MAX]);
    assert!(View::new(head(SIZE), &with_impossible).is_err());
    let mut with_older = tiles;
    with_older.insert(tile("0/273.p/111"), TREE.tile(tile("0/273.p/111")));
    assert_eq!(View::new(head(SIZE), &with_older).unwrap_err(), TileError::Foreign(tile("0/273.p/111")));
}

#[test]
fn bundles_hold_the_trees_entries() {
    let slice = Slice::holding(69_990, SIZE).unwrap();
    assert_eq!(slice.to_string(), "273.p/112");
    let entries: Vec<&[u8]> = (slice.first()..SIZE).map(entry).collect();
    let bytes = TREE.bundle(slice);
    let view = View::new(head(SIZE), &fetch(for_inclusion(69_990, SIZE).unwrap())).unwrap();
    assert_eq!(view.entries(slice, &bytes).unwrap(), entries);

    let mut swapped = entries.clone();
    swapped.swap(3, 4);
    let swapped = write_bundle(swapped).unwrap();
    assert_eq!(view.entries(slice, &swapped), Err(TileError::Swapped { index: slice.first() + 3 }));
    for length in [0, 1, 2, 11, bytes.len() - 1] {
        assert!(matches!(view.entries(slice, &bytes[..length]), Err(TileError::Bundle { .. })));
    }
    let more = [&bytes[..], &[0, 0]].concat();
    assert_eq!(view.entries(slice, &more), Err(TileError::Bundle { slice, at: bytes.len() }));
    let long = vec![0; ENTRY_MAX + 1];
    assert_eq!(write_bundle([&long[..]]), Err(TileError::Entry { got: ENTRY_MAX + 1 }));
    assert_eq!(write_bundle([&long[1..]]).unwrap().len(), 2 + ENTRY_MAX);
    assert_eq!(tile("0/273.p/112").filled(), tile("0/273"));
}

#[test]
fn narrow_parts_are_cut_from_the_widest() {
    let log = Memory::sized(600);
    let bytes = |resource: Resource| match resource {
        Resource::Checkpoint => Vec::new(),
        Resource::Tile(tile) => tile.bytes(&log).unwrap(),
        Resource::Entries(slice) => log.bundle(slice),
    };
    for (path, widest) in [
        ("tile/0/000.p/7", "tile/0/000"),
        ("tile/0/002.p/3", "tile/0/002.p/88"),
        ("tile/1/000.p/1", "tile/1/000.p/2"),
        ("tile/entries/001.p/255", "tile/entries/001"),
        ("tile/entries/002.p/88", "tile/entries/002.p/88"),
        ("checkpoint", "checkpoint"),
    ] {
        let (resource, wide): (Resource, Resource) = (path.parse().unwrap(), widest.parse().unwrap());
        assert_eq!(resource.widest(600), wide, "{path}");
        assert_eq!(resource.cut_from(wide, &bytes(wide)).unwrap(), bytes(resource), "{path}");
    }
    let beyond: Resource = "tile/0/002.p/89".parse().unwrap();
    assert_eq!(beyond.widest(600), beyond, "there is no such thing yet");
    let (narrow, wide): (Resource, Resource) = ("tile/0/000.p/7".parse().unwrap(), "tile/0/000".parse().unwrap());
    assert!(narrow.cut_from(wide, &[0; 31]).is_err());
}
