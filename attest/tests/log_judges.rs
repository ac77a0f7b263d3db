//! One log, read by programs that nobody here wrote: `signed_note` with `tlog_tiles`, `ct-merkle`, and Go's `sumdb/note` with
//! `sumdb/tlog`. What our own reader refuses, each of them refuses.
//!
//! Go's reader is judged where Go and Debian's `golang-golang-x-mod-dev` are installed; CI and `make judges` insist. It also shows them
//! the log of a real network, as its nodes served it, in the folder that `ARTEL_LOG_FOLDER` names.

#![expect(clippy::unwrap_used, reason = "a test that cannot lay out its files has failed")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

use attest::{
    log::{
        checkpoint::Signed,
        note::{Line, VerifierKey},
        tile::{self, Resource, Slice, Tile, View},
        tree::{self, Head, Subtree, Subtrees},
    },
    testing::log::{Memory, ORIGIN, log_key, witness_key},
};
use ct_merkle::{ConsistencyProof, InclusionProof, RootHash};
use protocol::{Sha256, Timestamp, testing::signing_key};
use signed_note::{Note, StandardVerifier, Verifier, VerifierList};
use tlog_tiles::{
    checkpoint::Checkpoint,
    tile::{TileHashReader, TileReader},
    tlog::{self, HashReader},
};

/// Three levels of tiles, a partial one on each.
const SIZE: u64 = 66_000;
/// The size of the checkpoint that a reader has seen before.
const OLDER: u64 = 300;
/// Entries that a reader looks at.
const PLACES: [u64; 7] = [0, 255, 256, 33_333, 65_535, 65_536, SIZE - 1];
/// The witness that cosigned.
const WITNESS: u8 = 5;

static HONEST: LazyLock<Memory> = LazyLock::new(|| Memory::sized(SIZE));

/// What a log serves, by path, and under `older` the checkpoint that its reader has seen before.
type Files = BTreeMap<String, Vec<u8>>;
/// A reader: it checks the signature, that the log continues the older checkpoint, and the entries at the places.
type Judge = fn(&Terms, &Files) -> Result<(), String>;

const JUDGES: [(&str, Judge); 3] = [("ours", ours), ("tlog_tiles", tlog_tiles), ("ct-merkle", ct_merkle)];

/// What a reader is asked about a log.
struct Terms {
    /// Who may sign the log: any of them; all are of one origin.
    keys: Vec<VerifierKey>,
    /// Who cosigned, if somebody did.
    witness: Option<VerifierKey>,
    /// The size of the checkpoint that was seen before.
    older: u64,
    size: u64,
    places: Vec<u64>,
}

impl Terms {
    fn origin(&self) -> &str {
        self.keys[0].name().as_str()
    }
}

fn sample() -> Terms {
    let (keys, witness) = (vec![log_key(ORIGIN)], Some(witness_key(WITNESS)));
    Terms { keys, witness, older: OLDER, size: SIZE, places: PLACES.to_vec() }
}

fn files(log: &Memory) -> Files {
    let mut files = log.files(SIZE);
    let checkpoint = log.checkpoint(SIZE);
    let at = Timestamp::from_millis(1_700_000_000_000);
    let text = checkpoint.as_signed().note().text();
    let line = Line::cosign(witness_key(WITNESS).name(), &signing_key(WITNESS), text, at);
    let cosigned = checkpoint.with_answer(&line.to_string(), &[witness_key(WITNESS)]).unwrap();
    files.insert("checkpoint".into(), cosigned.as_signed().to_string().into_bytes());
    files.insert("older".into(), HONEST.checkpoint(OLDER).as_signed().to_string().into_bytes());
    files
}

/// The log as it is, and as liars would have it.
fn cases(terms: &Terms, honest: Files, forks: Vec<(&'static str, Files)>) -> Vec<(&'static str, Files)> {
    let changed = |change: &dyn Fn(&mut Files)| {
        let mut files = honest.clone();
        change(&mut files);
        files
    };
    let flip = |path: &str| changed(&|files| files.get_mut(path).unwrap()[7] ^= 0x40);
    let edit = |from: &str, to: &str| {
        changed(&|files| {
            let text = String::from_utf8(files["checkpoint"].clone()).unwrap();
            assert!(text.contains(from));
            files.insert("checkpoint".into(), text.replacen(from, to, 1).into_bytes());
        })
    };
    let slice = Slice::holding(terms.size - 1, terms.size).unwrap();
    let swapped = changed(&|files| {
        let mut entries = tile::read_bundle(slice, &files[&Resource::Entries(slice).to_string()]).unwrap();
        let last = entries.len() - 1;
        entries.swap(0, last);
        let bytes = tile::write_bundle(entries).unwrap();
        files.insert(Resource::Entries(slice).to_string(), bytes);
    });
    let size = format!("\n{}\n", terms.size);
    let mut cases = vec![
        ("honest", honest.clone()),
        ("a flipped byte in a full tile", flip("tile/0/000")),
        ("a flipped byte in an entry", flip("tile/entries/001")),
        ("an edited size", edit(&size, &format!("\n{}\n", terms.size - 1))),
        ("an edited origin", edit(terms.origin(), "artel.example/dog")),
        ("a swapped entry", swapped),
    ];
    cases.extend(forks);
    cases.extend(
        Tile::partial(terms.size).map(|tile| ("a flipped byte in a partial tile", flip(&format!("tile/{tile}")))),
    );
    if terms.size >= 256 * 256 {
        cases.push(("a flipped byte one level up", flip("tile/1/000")));
    }
    cases
}

fn sample_cases() -> (Terms, Vec<(&'static str, Files)>) {
    let terms = sample();
    let cases = cases(&terms, files(&HONEST), vec![("a fork, signed", files(&Memory::forked(SIZE, 100)))]);
    (terms, cases)
}

fn judge_all(terms: &Terms, cases: &[(&'static str, Files)]) {
    for (case, files) in cases {
        for (name, judge) in JUDGES {
            let said = judge(terms, files);
            println!("{case}: {name}: {said:?}");
            assert_eq!(said.is_ok(), *case == "honest", "{case}: {name}: {said:?}");
        }
    }
}

#[test]
fn every_judge_reads_the_log_and_refuses_what_is_changed() {
    let (terms, cases) = sample_cases();
    judge_all(&terms, &cases);
}

/// The log of a network whose leader died, as its nodes served it, and two forks that its keys signed: a history that was written
/// anew, and one with which the former leader went on by itself; see `tests/it/log.rs`.
#[test]
fn every_judge_reads_the_log_of_a_real_network() {
    let Some(folder) = std::env::var_os("ARTEL_LOG_FOLDER").map(PathBuf::from) else {
        return println!("SKIPPED: ARTEL_LOG_FOLDER names no log; `make judges` makes one");
    };
    let [honest, rewritten, failover] = ["honest", "rewritten", "failover"].map(|name| read_files(&folder.join(name)));
    let keys: Vec<VerifierKey> =
        fs::read_to_string(folder.join("vkeys")).unwrap().lines().map(|key| key.parse().unwrap()).collect();
    let head = |path: &str| Signed::read(&honest[path]).unwrap().verify(&keys).unwrap().head();
    let (older, size) = (head("older").size, head("checkpoint").size);
    println!("a network's log of {size} entries, which continues one of {older}");
    assert!(size >= 10_000 && older > 256 && older < size, "{older} {size}");
    let places = vec![0, 255, 256, older - 1, older, size / 2, size - 1];
    let signer = |files: &Files| {
        let signed = Signed::read(&files["checkpoint"]).unwrap();
        keys.iter().position(|key| signed.clone().verify(std::slice::from_ref(key)).is_ok()).unwrap()
    };
    assert_ne!(signer(&honest), signer(&failover), "the fork after the failover is signed by another coordinator");
    let forks = vec![("a fork, signed", rewritten), ("a fork after a failover, signed by the former leader", failover)];
    let terms = Terms { keys, witness: None, older, size, places };
    let cases = cases(&terms, honest, forks);
    judge_all(&terms, &cases);
    judge_by_go(&terms, cases);
}

fn read_files(folder: &Path) -> Files {
    let (mut files, mut folders) = (Files::new(), vec![folder.to_owned()]);
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
                files.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    files
}

/// Reads a log as this crate does.
fn ours(terms: &Terms, files: &Files) -> Result<(), String> {
    let words = |e: &dyn std::error::Error| e.to_string();
    let checkpoint = Signed::read(&files["checkpoint"]).map_err(|e| words(&e))?;
    let checkpoint = checkpoint.verify(&terms.keys).map_err(|e| words(&e))?;
    let older = Signed::read(&files["older"]).unwrap().verify(&terms.keys).unwrap();
    let mut tiles = tile::for_consistency(terms.older, terms.size).unwrap();
    tiles.extend(terms.places.iter().flat_map(|index| tile::for_inclusion(*index, terms.size).unwrap()));
    let view = View::new(checkpoint.head(), &fetch(files, tiles)).map_err(|e| words(&e))?;
    let proof = tree::consistency(terms.older, terms.size, &view).map_err(|e| words(&e))?;
    tree::check_consistency(older.head(), view.head(), &proof).map_err(|e| words(&e))?;
    for index in terms.places.iter().copied() {
        let slice = Slice::holding(index, terms.size).unwrap();
        view.entries(slice, &files[&Resource::Entries(slice).to_string()]).map_err(|e| words(&e))?;
        let proof = tree::inclusion(index, terms.size, &view).map_err(|e| words(&e))?;
        tree::check_inclusion(tree::leaf(entry(terms, files, index)), index, view.head(), &proof)
            .map_err(|e| words(&e))?;
    }
    Ok(())
}

fn fetch(files: &Files, tiles: BTreeSet<Tile>) -> BTreeMap<Tile, Vec<u8>> {
    tiles.into_iter().map(|tile| (tile, files[&Resource::Tile(tile).to_string()].clone())).collect()
}

/// Takes one entry out of its bundle, believing it.
fn entry<'a>(terms: &Terms, files: &'a Files, index: u64) -> &'a [u8] {
    let slice = Slice::holding(index, terms.size).unwrap();
    let entries = tile::read_bundle(slice, &files[&Resource::Entries(slice).to_string()]).unwrap();
    entries[(index - slice.first()) as usize]
}

/// Opens a note with the `signed_note` crate, and its text with `tlog_tiles`.
fn open(terms: &Terms, bytes: &[u8]) -> Result<Checkpoint, String> {
    let note = Note::from_bytes(bytes).map_err(|e| e.to_string())?;
    let verifier =
        |key: &VerifierKey| StandardVerifier::new(&key.to_string()).map(|v| Box::new(v) as Box<dyn Verifier>);
    let verifiers = terms.keys.iter().map(verifier).collect::<Result<Vec<_>, _>>().map_err(|e| e.to_string())?;
    note.verify(&VerifierList::new(verifiers)).map_err(|e| e.to_string())?;
    let checkpoint = Checkpoint::from_bytes(note.text()).map_err(|e| e.to_string())?;
    if checkpoint.origin() == terms.origin() { Ok(checkpoint) } else { Err("another origin".into()) }
}

/// Tiles for `tlog_tiles`, whose paths name the height of a tile and whose entries lie elsewhere.
struct Served<'a>(&'a Files);

impl TileReader for Served<'_> {
    fn height(&self) -> u8 {
        8
    }

    fn read_tiles(&self, tiles: &[tlog_tiles::tile::Tile]) -> Result<Vec<Vec<u8>>, tlog::Error> {
        let path = |tile: &tlog_tiles::tile::Tile| tile.path().replacen("tile/8/", "tile/", 1);
        tiles.iter().map(|tile| self.0.get(&path(tile)).cloned().ok_or(tlog::Error::InvalidTile)).collect()
    }

    fn save_tiles(&self, _: &[tlog_tiles::tile::Tile], _: &[Vec<u8>]) {}
}

fn tlog_tiles(terms: &Terms, files: &Files) -> Result<(), String> {
    let (checkpoint, older) = (open(terms, &files["checkpoint"])?, open(terms, &files["older"]).unwrap());
    let served = Served(files);
    let reader = TileHashReader::new(checkpoint.size(), *checkpoint.hash(), &served);
    let words = |e: tlog::Error| e.to_string();
    let proof = tlog::prove_tree(terms.size, terms.older, &reader).map_err(words)?;
    tlog::check_tree(&proof, terms.size, *checkpoint.hash(), terms.older, *older.hash()).map_err(words)?;
    for index in terms.places.iter().copied() {
        let hash = tlog::record_hash(entry(terms, files, index));
        let proof = tlog::prove_record(terms.size, index, &reader).map_err(words)?;
        tlog::check_record(&proof, terms.size, *checkpoint.hash(), index, hash).map_err(words)?;
        let stored = reader.read_hashes(&[tlog::stored_hash_index(0, index)]).map_err(words)?;
        if stored != [hash] {
            return Err(format!("entry {index} is another one"));
        }
    }
    Ok(())
}

/// The hashes in tiles as they are, checked by nobody: `ct-merkle` shall find out by itself.
struct Unchecked<'a>(&'a Files, u64);

impl Subtrees for Unchecked<'_> {
    type Error = std::convert::Infallible;

    fn hash(&self, subtree: Subtree) -> Result<Sha256, Self::Error> {
        if !subtree.height.is_multiple_of(8) {
            let half = |index| self.hash(Subtree { height: subtree.height - 1, index });
            return Ok(tree::node(&half(2 * subtree.index)?, &half(2 * subtree.index + 1)?));
        }
        let slice = Slice::holding(subtree.index, self.1 >> subtree.height).unwrap();
        let bytes = &self.0[&format!("tile/{}/{slice}", subtree.height / 8)];
        let at = (subtree.index - slice.first()) as usize;
        Ok(Sha256::from_bytes(bytes.as_chunks().0[at]))
    }
}

fn ct_merkle(terms: &Terms, files: &Files) -> Result<(), String> {
    let head =
        |path: &str| open(terms, &files[path]).map(|c| RootHash::<sha2::Sha256>::new(c.hash().0.into(), c.size()));
    let (now, older) = (head("checkpoint")?, head("older").unwrap());
    let bytes = |hashes: Vec<Sha256>| hashes.iter().flat_map(|hash| *hash.as_bytes()).collect::<Vec<u8>>();
    let proof = bytes(tree::consistency(terms.older, terms.size, &Unchecked(files, terms.size)).unwrap());
    let proof = ConsistencyProof::try_from_bytes(proof).map_err(|e| e.to_string())?;
    now.verify_consistency(&older, &proof).map_err(|e| e.to_string())?;
    for index in terms.places.iter().copied() {
        let proof = bytes(tree::inclusion(index, terms.size, &Unchecked(files, terms.size)).unwrap());
        let proof = InclusionProof::try_from_bytes(proof).map_err(|e| e.to_string())?;
        now.verify_inclusion(&entry(terms, files, index), index, &proof).map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// The crates compute the same roots and the same proofs, at every size up to a few tiles.
#[test]
fn roots_and_proofs_are_those_of_ct_merkle() {
    let mut theirs = ct_merkle::mem_backed_tree::MemoryBackedTree::<sha2::Sha256, Vec<u8>>::new();
    for (size, entry) in (1..=530u64).zip(HONEST.entries()) {
        theirs.push(entry.clone());
        assert_eq!(HONEST.head(size).root.as_bytes()[..], theirs.root().as_bytes()[..], "{size}");
        let bytes = |hashes: Vec<Sha256>| hashes.iter().flat_map(|hash| *hash.as_bytes()).collect::<Vec<u8>>();
        for index in [0, size / 3, size - 1] {
            let proof = tree::inclusion(index, size, &*HONEST).unwrap();
            assert_eq!(bytes(proof), theirs.prove_inclusion(index as usize).as_bytes(), "{index} of {size}");
        }
        for old in [1, size.div_ceil(2), size] {
            let proof = tree::consistency(old, size, &*HONEST).unwrap();
            let expected = theirs.prove_consistency((size - old) as usize);
            assert_eq!(bytes(proof), expected.as_bytes(), "{old} to {size}");
        }
    }
    assert_eq!(
        Head::empty().root.as_bytes()[..],
        ct_merkle::mem_backed_tree::MemoryBackedTree::<sha2::Sha256, Vec<u8>>::new().root().as_bytes()[..]
    );
}

/// Where Debian puts the sources of Go's packages.
const GO_PATH: &str = "/usr/share/gocode";

/// Builds Go's reader; none, with the reason, where Go is not installed.
fn go(folder: &Path) -> Option<PathBuf> {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/judges/log.go");
    let program = folder.join("log");
    let package = Path::new(GO_PATH).join("src/golang.org/x/mod/sumdb/tlog").is_dir();
    let mut build = Command::new("go");
    build.args(["build", "-o"]).arg(&program).arg(source);
    build.env("GO111MODULE", "off").env("GOPATH", GO_PATH).env("GOFLAGS", "").env("GOCACHE", folder.join("cache"));
    let missing = match build.output() {
        _ if !package => "Debian's golang-golang-x-mod-dev is not installed".to_owned(),
        Err(e) => format!("go: {e}"),
        Ok(said) => {
            assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
            return Some(program);
        }
    };
    assert_ne!(std::env::var("ARTEL_GO").as_deref(), Ok("required"), "{missing}");
    println!("SKIPPED: {missing}");
    None
}

fn judge_by_go(terms: &Terms, cases: Vec<(&'static str, Files)>) {
    let folder = tempfile::tempdir().unwrap();
    let Some(program) = go(folder.path()) else { return };
    for (number, (case, files)) in cases.into_iter().enumerate() {
        let place = folder.path().join(number.to_string());
        for (path, bytes) in &files {
            let path = place.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        let mut judge = Command::new(&program);
        let witness = terms.witness.as_ref().map_or_else(|| "-".to_owned(), VerifierKey::to_string);
        let keys: Vec<String> = terms.keys.iter().map(ToString::to_string).collect();
        judge.arg(&place).args([keys.join(","), witness]);
        let said = judge.args(terms.places.iter().map(u64::to_string)).output().unwrap();
        let words = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned();
        println!("{case}: {}", words.trim_end());
        assert_eq!(said.status.code(), Some(if case == "honest" { 0 } else { 1 }), "{case}: {words}");
    }
}

#[test]
fn go_reads_the_log_and_refuses_what_is_changed() {
    let (terms, cases) = sample_cases();
    judge_by_go(&terms, cases);
}
