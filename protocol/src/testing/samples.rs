//! One sample value of every record and of every message variant, fixed for ever: golden bytes are made from them.

use crate::{
    Arch, ChannelName, FileName, Hash, JobId, MaintainerName, NetworkId, NodeId, OperatorName, PackageName, PublicKey,
    Salt, Sha256, Signed, SuiteName, Timestamp, Verified,
    blame::{Blame, Failure},
    environment::{EnvironmentLock, Family, LockedPackage},
    job::{
        Announcement, BuildLimits, Change, CommandJob, DebJob, Derive, Diff, FetchJob, FetchSource, FileOrigin,
        GitOrigin, ImageFormat, ImageJob, InputFile, Isolation, JobKind, JobRequest, NamedOrigin, Order, Origin,
        Pointer, Priority, Promote, Prune, RpmJob, Schedule, ServerJob, Side, SourceFile,
    },
    lease::{Lease, LeaseNumber, Profile, Term},
    message::{
        Bid, Commitment, Failed, Grounds, LogChunk, Logged, Octets, Offer, Refusal, Renewal, Request, Response,
        Revealed,
    },
    peer::{Capacity, Leadership, NodeCard},
    policy::{Channel, Coordinators, Maintainer, NetworkLimits, Operator, Policy, Revoked, Roots},
    recipe::{
        Decision, Flavour, GitSource, Named, Plan, Product, Recipe, RecipeRun, Revision, RunJobs, RunState, Upstream,
    },
    release::{Manifest, PublishedPackage, Release, ReleaseFile},
    testing::{node, public_key, signing_key},
    words::{DebVersion, NetworkName, RelativePath},
};

/// The key seed of the root and of the maintainer; nodes of the operators have the seeds 10, 11, and so on.
pub const ROOT_SEED: u8 = 1;
/// See [`ROOT_SEED`].
pub const MAINTAINER_SEED: u8 = 2;

/// 2026-11-21T00:00:00Z: when everything in the samples happens.
pub const NOW: Timestamp = Timestamp::from_millis(1_795_219_200_000);
const YEAR_LATER: Timestamp = Timestamp::from_millis(1_826_755_200_000);

fn word<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().expect("samples are valid words")
}

/// Gives a channel `stable` that wants `agree` of `ask` operators, at most one more than `ask`.
pub fn channel(agree: u8, ask: u8) -> Channel {
    Channel {
        ask,
        name: stable(),
        agree,
        suite: word::<SuiteName>("stable"),
        arches: vec![Arch::Amd64, Arch::Arm64],
        ask_max: ask + 1,
        valid_secs: 7 * 86_400,
        fail_quorum: 2,
        witnesses: 0,
        attested_environments: false,
    }
}

/// Gives a genesis policy: operators `op-a`, `op-b` and so on, one node each with seeds from 10 on, the first
/// coordinating; one root, one maintainer, channel `stable` with 2 of 2.
pub fn genesis(operators: u8) -> Policy {
    let operators: Vec<Operator> =
        (0..operators).map(|at| Operator { name: operator(at), nodes: vec![node(10 + at)] }).collect();
    Policy {
        name: word::<NetworkName>("sample"),
        roots: Roots { keys: vec![public_key(ROOT_SEED)], threshold: 1 },
        limits: NetworkLimits { open_jobs: 100, build_secs: 4 * 3600, output_mib: 1024 },
        number: 1,
        expires: YEAR_LATER,
        network: None,
        revoked: Vec::new(),
        channels: vec![channel(2, 2)],
        mirrors: vec![node(40)],
        bootstrap: vec!["/ip4/127.0.0.1/udp/4001/quic-v1".to_owned()],
        operators,
        maintainers: vec![Maintainer {
            key: public_key(MAINTAINER_SEED),
            name: word::<MaintainerName>("maria"),
            channels: vec![stable()],
        }],
        coordinators: Coordinators::Pinned(node(10)),
    }
}

/// Gives the name of an operator of [`genesis`]: `op-a` for 0.
pub fn operator(at: u8) -> OperatorName {
    word(&format!("op-{}", char::from(b'a' + at)))
}

/// Gives a genesis policy signed by its root, and the network that it makes.
pub fn signed_genesis(policy: &Policy) -> (Verified<Policy>, NetworkId) {
    let signed = Signed::sign(policy, None, &[&signing_key(ROOT_SEED)]);
    let verified = signed.verify(None).expect("the sample policy keeps its own rules");
    let network = NetworkId::from(verified.id());
    (verified, network)
}

/// Gives a second policy of a network, changed by the caller.
pub fn second(network: NetworkId, operators: u8) -> Policy {
    Policy { number: 2, network: Some(network), ..genesis(operators) }
}

/// Gives a third policy, in which a builder's node and a maintainer's earlier key count no more.
pub fn third(network: NetworkId) -> Policy {
    let revoked = |key: PublicKey, from, reason: &str| Revoked { key, from, reason: reason.to_owned() };
    let mut revoked = vec![
        revoked(PublicKey::from(node(12)), 40, "its disk was sold"),
        revoked(public_key(MAINTAINER_SEED + 1), 0, "never hers"),
    ];
    revoked.sort();
    Policy { number: 3, revoked, ..second(network, 2) }
}

fn stable() -> ChannelName {
    word("stable")
}

fn sha(text: &str) -> Sha256 {
    Sha256::of(text.as_bytes())
}

fn hash(text: &str) -> Hash {
    Hash::of(text.as_bytes())
}

/// Gives an environment lock of two packages.
pub fn lock() -> EnvironmentLock {
    let package = |name: &str, version: &str, arch: Arch| LockedPackage {
        arch,
        file: word::<FileName>(&format!("{name}_{version}_{arch}.deb")),
        from: None,
        hash: hash(name),
        name: word::<PackageName>(name),
        size: 4096,
        sha256: sha(name),
        version: word::<DebVersion>(version),
    };
    EnvironmentLock {
        arch: Arch::Amd64,
        epoch: 1_700_000_000,
        suite: word("bookworm"),
        family: Family::Dpkg,
        packages: vec![package("base-files", "12.4", Arch::Amd64), package("libfaketime", "0.9.10-2.1", Arch::Amd64)],
    }
}

/// Gives an environment of one RPM.
pub fn lock_of_rpm() -> EnvironmentLock {
    let package = LockedPackage {
        arch: Arch::All,
        file: word("Artel-shell-1.2^git3-1.art1.noarch.rpm"),
        from: None,
        hash: hash("rpm"),
        name: word("Artel-shell"),
        size: 4096,
        sha256: sha("rpm"),
        version: word("3:1.2^git3-1.art1"),
    };
    EnvironmentLock { suite: word("40"), family: Family::Rpm, packages: vec![package], ..lock() }
}

/// Gives a request to build `base-files 12.4`.
pub fn deb_request(network: NetworkId) -> JobRequest {
    let file = |name: &str| SourceFile { hash: hash(name), name: word(name), size: 1000, sha256: sha(name) };
    request(
        network,
        JobKind::Deb(DebJob {
            files: vec![file("base-files_12.4.dsc"), file("base-files_12.4.tar.xz")],
            source: word("base-files"),
            options: vec!["nocheck".to_owned()],
            version: word("12.4"),
            profiles: vec!["nodoc".to_owned()],
        }),
    )
}

/// Gives a request to build `Answer 1.2^git3` as RPMs.
pub fn rpm_request(network: NetworkId) -> JobRequest {
    let file = |name: &str| SourceFile { hash: hash(name), name: word(name), size: 1000, sha256: sha(name) };
    request(
        network,
        JobKind::Rpm(RpmJob {
            name: word("Answer"),
            files: vec![file("Answer-1.2.tar.gz"), file("Answer.spec")],
            macros: vec!["dist .art1".to_owned()],
            version: word("1.2^git3"),
        }),
    )
}

/// Gives a request to run a command that leaves `out/answer.txt`.
pub fn command_request(network: NetworkId) -> JobRequest {
    request(
        network,
        JobKind::Command(CommandJob {
            isolation: Isolation::Rootfs,
            argv: vec!["sh".to_owned(), "-c".to_owned(), "sort in.txt > out/answer.txt".to_owned()],
            name: word("answer"),
            inputs: vec![InputFile { hash: hash("in"), path: word("in.txt"), size: 2, sha256: sha("in") }],
            outputs: vec![word::<RelativePath>("out/answer.txt")],
        }),
    )
}

/// Gives a request to make a live system.
pub fn image_request(network: NetworkId) -> JobRequest {
    request(
        network,
        JobKind::Image(ImageJob {
            name: word("shop"),
            epoch: 1_700_000_000,
            files: vec![InputFile { hash: hash("motd"), path: word("etc/motd"), size: 2, sha256: sha("motd") }],
            setup: vec!["passwd -d root".to_owned()],
            locale: "C.UTF-8".to_owned(),
            formats: vec![ImageFormat::Iso, ImageFormat::Ext4],
            version: word("20231114"),
            hostname: "shop".to_owned(),
            packages: SourceFile { hash: hash("lock"), name: word(ImageJob::LOCK), size: 9, sha256: sha("lock") },
            subproject: Some(word("kiosk")),
        }),
    )
}

/// Gives a request to make an environment, that of the other samples, as an image.
pub fn environment_request(network: NetworkId) -> JobRequest {
    let mut request = image_request(network);
    let environment = request.environment;
    request.environment = hash("tools");
    if let JobKind::Image(image) = &mut request.kind {
        (image.files, image.setup, image.formats) = (vec![], vec![], vec![ImageFormat::Tar]);
        image.packages.hash = environment;
    }
    request
}

/// Gives a command that finds its builder's own programs.
pub fn light_request(network: NetworkId) -> JobRequest {
    let mut request = command_request(network);
    if let JobKind::Command(command) = &mut request.kind {
        command.isolation = Isolation::Light;
    }
    request
}

/// Gives a request to fetch a commit and a file.
pub fn fetch_request(network: NetworkId) -> JobRequest {
    let git = GitOrigin {
        url: word("https://git.example/shop.git"),
        commit: word("0123456789abcdef0123456789abcdef01234567"),
        reference: word("refs/heads/main"),
    };
    let file = FileOrigin { url: word("https://example.org/shop-1.0.tar.gz"), sha256: Some(sha("tarball")) };
    let named = NamedOrigin {
        by: Pointer::Spec,
        tree: word("packaging"),
        hosts: vec![word("example.org"), word("mirror.example")],
        macros: vec!["dist .art1".to_owned()],
    };
    let sources = vec![
        FetchSource { name: word("packaging"), origin: Origin::Git(git) },
        FetchSource { name: word("shop-1.0.tar.gz"), origin: Origin::File(file) },
        FetchSource { name: word("upstream"), origin: Origin::Named(named) },
    ];
    request(network, JobKind::Fetch(FetchJob { name: word("shop"), sources }))
}

/// Gives the card of a builder that fetches.
pub fn node_card_of_fetcher() -> NodeCard {
    let mut card = node_card();
    if let Some(capacity) = &mut card.capacity {
        capacity.fetch = vec![word("*.debian.org"), word("github.com")];
    }
    card
}

/// Gives a recipe that follows what its packaging names.
pub fn recipe_named(network: NetworkId) -> Recipe {
    let mut recipe = recipe(network);
    if let Some(plan) = &mut recipe.plan {
        plan.flavour = Flavour::Release;
        plan.upstream = Upstream::Named(Named { by: Pointer::Watch, hosts: vec![word("example.org")] });
    }
    recipe
}

/// Gives a recipe that follows version control.
pub fn recipe(network: NetworkId) -> Recipe {
    let git = |name: &str| GitSource { url: word(&format!("https://git.example/{name}.git")), reference: word("main") };
    Recipe {
        at: NOW,
        name: word("shop"),
        plan: Some(Plan {
            kind: Product::Deb,
            arches: vec![Arch::Amd64],
            macros: Vec::new(),
            flavour: Flavour::Ci,
            requires: Vec::new(),
            upstream: Upstream::Git(git("shop")),
            packaging: Some(git("shop-debian")),
        }),
        number: 1,
        channel: stable(),
        network,
    }
}

/// Gives a run of [`recipe`] that is over.
pub fn recipe_run(network: NetworkId) -> RecipeRun {
    let commit = Revision { name: word("upstream"), what: "0123456789abcdef0123456789abcdef01234567".to_owned() };
    RecipeRun {
        at: NOW,
        run: 2,
        jobs: RunJobs { fetch: Some(job()), builds: vec![job()], source: Some(job()) },
        step: 3,
        state: RunState::Ended,
        number: 1,
        recipe: word("shop"),
        network,
        version: Some(word("1.0+git20261121000000.3-1")),
        decision: Some(Decision::Build("first build".to_owned())),
        revisions: vec![commit],
    }
}

/// Gives one server job of each kind, with the name of its golden file; all for channel `stable`.
pub fn server_jobs() -> Vec<(&'static str, ServerJob)> {
    let (testing, hello) = (word::<ChannelName>("testing"), || vec![word::<PackageName>("hello")]);
    let side = |generation| Side { channel: stable(), generation };
    vec![
        ("promote", ServerJob::Promote(Promote { from: testing.clone(), packages: hello() })),
        ("prune", ServerJob::Prune(Prune { keep: 1, before: Some(NOW), packages: hello() })),
        ("derive", ServerJob::Derive(Derive { arches: vec![Arch::Amd64], parent: testing, packages: Vec::new() })),
        ("diff", ServerJob::Diff(Diff { left: side(Some(3)), right: side(None) })),
    ]
}

/// Gives a request for a server job.
pub fn server_request(network: NetworkId, server: ServerJob) -> JobRequest {
    let (arch, environment) = (Arch::All, ServerJob::environment());
    JobRequest { arch, environment, ..request(network, JobKind::Server(server)) }
}

fn request(network: NetworkId, kind: JobKind) -> JobRequest {
    JobRequest {
        arch: Arch::Amd64,
        kind,
        nonce: vec![7; 16],
        limits: BuildLimits::default(),
        channel: stable(),
        created: NOW,
        expires: Timestamp::from_millis(NOW.as_millis() + 86_400_000),
        network,
        schedule: Schedule::default(),
        environment: lock().id(),
    }
}

/// Signs a request as the sample maintainer.
pub fn signed_request(request: &JobRequest) -> Verified<JobRequest> {
    let signed = Signed::sign(request, Some(&request.network), &[&signing_key(MAINTAINER_SEED)]);
    signed.verify(Some(&request.network)).expect("the sample request keeps its own rules")
}

/// Gives the network of `genesis(3)`.
pub fn network() -> NetworkId {
    signed_genesis(&genesis(3)).1
}

fn job() -> JobId {
    JobId::from(hash("job"))
}

/// Gives an order to cancel.
pub fn order() -> Order {
    Order { at: NOW, job: job(), what: Change::Cancel, reason: "wrong version".to_owned() }
}

/// Gives an announcement that excludes one node.
pub fn announcement() -> Announcement {
    Announcement {
        at: NOW,
        job: job(),
        arch: Arch::Amd64,
        channel: stable(),
        excluded: vec![node(11)],
        memory_mib: 4096,
    }
}

/// Gives a builder's card.
pub fn node_card() -> NodeCard {
    NodeCard {
        node: node(10),
        roles: vec!["builder".to_owned(), "mirror".to_owned()],
        expires: YEAR_LATER,
        version: "0.1.0".to_owned(),
        capacity: Some(Capacity {
            isolation: Isolation::Rootfs,
            fetch: Vec::new(),
            slots: 2,
            arches: vec![Arch::Amd64],
            disk_mib: 20_000,
            memory_mib: 8192,
        }),
        draining: None,
        sequence: 3,
        addresses: vec!["/ip4/127.0.0.1/tcp/4001".to_owned()],
    }
}

/// Gives a leader's word that it leads.
pub fn leadership() -> Leadership {
    Leadership { at: NOW, node: node(10), term: Term(3), since: NOW }
}

/// Gives a schedule with everything in it.
pub fn schedule() -> Schedule {
    Schedule {
        only: vec![node(10)],
        after: vec![job()],
        group: None,
        without: vec![node(11)],
        priority: Priority(9),
        not_before: Some(NOW),
    }
}

/// Gives the first release of the channel.
pub fn release() -> Release {
    Release { at: NOW, term: Term(1), channel: stable(), manifest: hash("manifest"), generation: 1 }
}

/// Gives a manifest of one package and one index.
pub fn manifest() -> Manifest {
    let file = |path: &str| ReleaseFile { hash: hash(path), path: word(path), size: 512, sha256: sha(path) };
    let deb = "pool/main/b/base-files/base-files_12.4_amd64.deb";
    Manifest {
        files: vec![file("dists/stable/Release"), file(deb)],
        packages: vec![PublishedPackage {
            job: job(),
            arch: Arch::Amd64,
            name: word("base-files"),
            path: word(deb),
            bundle: hash("bundle"),
            version: word("12.4"),
            attested: None,
        }],
    }
}

/// Gives the manifest of one RPM, whose file is another one than the builders attested.
pub fn manifest_of_rpm() -> Manifest {
    let rpm = "pool/main/A/Answer/Answer-1.2^git3-1.x86_64.rpm";
    Manifest {
        files: vec![ReleaseFile { hash: hash(rpm), path: word(rpm), size: 512, sha256: sha(rpm) }],
        packages: vec![PublishedPackage {
            job: job(),
            arch: Arch::Amd64,
            name: word("Answer"),
            path: word(rpm),
            bundle: hash("bundle"),
            version: word("1.2^git3-1"),
            attested: Some(sha("unsigned")),
        }],
    }
}

/// Gives a lease.
pub fn lease() -> Lease {
    Lease { job: job(), node: node(10), number: LeaseNumber(7), expires: NOW, profile: Profile(1), memory_mib: 4096 }
}

/// Gives a failure that blames the job.
pub fn failure() -> Failure {
    Failure::new(Blame::Job, "build", "dpkg-buildpackage ended with status 2")
}

/// Gives every variant of [`Request`], with the name of its golden file.
pub fn requests() -> Vec<(&'static str, Request)> {
    let octets = || Octets(vec![0xa1, 0x61, 0x78, 0x01]);
    vec![
        ("submit", Request::Submit(octets())),
        ("order", Request::Order(octets())),
        ("policy", Request::Policy),
        ("adopt-policy", Request::AdoptPolicy(octets())),
        ("open", Request::Open),
        ("job", Request::Job(job())),
        ("providers", Request::Providers(job())),
        ("bid", Request::Bid(Bid { job: job(), memory_mib: 8192 })),
        ("grant", Request::Grant(Term(3), lease())),
        ("revoke", Request::Revoke(Term(3), LeaseNumber(7), "the job was cancelled".to_owned())),
        ("renew", Request::Renew(vec![Renewal { lease: LeaseNumber(7), phase: "build".to_owned() }])),
        ("started", Request::Started(LeaseNumber(7))),
        ("revealed", Request::Revealed(revealed())),
        ("revealed-salted", Request::Revealed(Revealed { salt: Some(Salt::from_bytes([5; 32])), ..revealed() })),
        ("commit", Request::Commit(commitment())),
        ("commit-signed", Request::Commit(Commitment { signature: Some(Octets(vec![5; 64])), ..commitment() })),
        ("grounds", Request::Grounds(LeaseNumber(7), 4096)),
        ("reveal", Request::Reveal(Term(3), LeaseNumber(7))),
        ("disclose", Request::Disclose(Term(3), job())),
        ("failed", Request::Failed(failed())),
        ("failed-without-log", Request::Failed(Failed { log: None, lease: LeaseNumber(8), ..failed() })),
        ("failed-signed", Request::Failed(Failed { statement: Some(octets()), ..failed() })),
        ("log", Request::Log(LeaseNumber(7), 65_536)),
        ("release", Request::Release(stable())),
        ("leader", Request::Leader),
        ("offer", Request::Offer(offer())),
        ("signer", Request::Signer(octets())),
        ("view", Request::View("/api/v1/jobs".to_owned())),
        ("recipe", Request::Recipe(octets())),
        ("recipe-run", Request::RecipeRun(octets())),
        ("add-checkpoint", Request::AddCheckpoint(Octets(b"old 0\n\n".to_vec()))),
        ("checkpoint", Request::Checkpoint(octets())),
        ("release-proof", Request::ReleaseProof(hash("release"))),
    ]
}

fn commitment() -> Commitment {
    Commitment { lease: LeaseNumber(7), digest: hash("commitment"), signature: None }
}

fn grounds() -> Grounds {
    let sha256 = |byte| Sha256::from_bytes([byte; 32]);
    let logged = Logged { path: vec![sha256(1), sha256(2)], entry: Octets(vec![0xa1, 0x61, 0x78, 0x01]), index: 4097 };
    Grounds {
        entries: vec![logged],
        negatives: vec![Octets(b"{}".to_vec())],
        checkpoint: Octets(b"artel/test\n4098\n".to_vec()),
        consistency: vec![sha256(3)],
    }
}

/// Gives a builder's offer.
pub fn offer() -> Offer {
    Offer { free: 2, held: vec![LeaseNumber(7)], arches: vec![Arch::Amd64], memory_mib: 8192 }
}

fn failed() -> Failed {
    Failed { log: Some(hash("log")), lease: LeaseNumber(7), failure: failure(), statement: None }
}

fn revealed() -> Revealed {
    Revealed { log: hash("log"), salt: None, lease: LeaseNumber(7), attestation: Octets(b"{}".to_vec()) }
}

/// Gives every variant of [`Response`] and of [`Refusal`], with the name of its golden file.
pub fn responses() -> Vec<(&'static str, Response)> {
    let octets = || Octets(vec![0xa1, 0x61, 0x78, 0x01]);
    let nodes: Vec<NodeId> = vec![node(10), node(11)];
    vec![
        ("done", Response::Done),
        ("receipt", Response::Receipt(job(), NOW)),
        ("record", Response::Record(octets())),
        ("records", Response::Records(vec![octets()])),
        ("providers", Response::Providers(nodes)),
        ("lost", Response::Lost(vec![LeaseNumber(7)])),
        ("reveal", Response::Reveal),
        ("grounds", Response::Grounds(grounds())),
        ("log", Response::Log(LogChunk { at: 65_536, data: b"dpkg-deb: building\n".to_vec(), ended: false })),
        ("view", Response::View(Octets(b"{\"jobs\":[]}".to_vec()))),
        ("witness", Response::Witness(409, Octets(b"7\n".to_vec()))),
        ("checkpoint", Response::Checkpoint(octets())),
        ("conflict", Response::Conflict(octets())),
        ("refused-not-coordinator", Response::Refused(Refusal::NotCoordinator(Some(node(10))))),
        ("refused-nobody-coordinates", Response::Refused(Refusal::NotCoordinator(None))),
        ("refused-unknown", Response::Refused(Refusal::Unknown("job".to_owned()))),
        ("refused-invalid", Response::Refused(Refusal::Invalid("expired".to_owned()))),
        ("refused-not-allowed", Response::Refused(Refusal::NotAllowed("no maintainer".to_owned()))),
        ("refused-busy", Response::Refused(Refusal::Busy("submissions".to_owned()))),
    ]
}
