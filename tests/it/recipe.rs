//! Recipes: a package that follows version control, a release from a tarball, and what is refused.
//!
//! Repositories and tarballs are served over HTTP on loopback, which the builders' owners list by address and port. Git reads
//! them as it reads any static server.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use artel::keys;
use harness::{Ground, Network, Plan, Said, Scratch, run, until};
use protocol::{
    Sha256,
    recipe::{Decision, RecipeRun, RunState},
    words::RecipeName,
};
use web::{
    Backend,
    api::{JobState, RecipeView},
};

use crate::ground;

/// Fetches with tools of their own environment, and the archive's index is read for each lock.
const RUN_WITHIN: Duration = Duration::from_secs(300);
const STEP_WITHIN: Duration = Duration::from_secs(120);
/// What a fetch's environment has beside the buildd set.
const FETCH_TOOLS: [&str; 4] = ["ca-certificates", "curl", "git", "socat"];
/// And to follow a watch file.
const WATCH_TOOLS: [&str; 4] =
    ["devscripts", "liblwp-protocol-https-perl", "liblwp-protocol-socks-perl", "libwww-perl"];

/// A folder served over HTTP until the end of the test.
struct Site {
    folder: PathBuf,
    port: u16,
    server: Child,
}

impl Site {
    fn open(folder: PathBuf) -> Self {
        fs::create_dir_all(&folder).unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/it/recipe/serve.py");
        let mut server = Command::new("python3").arg(script).arg(&folder).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { folder, port: line.trim().parse().unwrap(), server }
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// A repository with a folder to work in, and a bare copy that is served.
struct Repository {
    work: PathBuf,
    name: &'static str,
}

fn git(folder: &Path, time: &str, words: &[&str]) -> String {
    let mut command = Command::new("git");
    command.current_dir(folder).args(["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]).args(words);
    command.env("GIT_COMMITTER_DATE", time).env("GIT_AUTHOR_DATE", time).env("GIT_CONFIG_GLOBAL", "/dev/null");
    let output = command.output().unwrap();
    assert!(output.status.success(), "git {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

impl Repository {
    fn found(site: &Site, folder: &Path, name: &'static str) -> Self {
        let (work, bare) = (folder.join(name), site.folder.join(format!("{name}.git")));
        fs::create_dir_all(&work).unwrap();
        git(folder, "@0 +0000", &["init", "--quiet", "--bare", "--initial-branch=main", bare.to_str().unwrap()]);
        git(&work, "@0 +0000", &["init", "--quiet", "--initial-branch=main"]);
        git(&work, "@0 +0000", &["remote", "add", "origin", bare.to_str().unwrap()]);
        Self { work, name }
    }

    /// Commits everything and pushes it. Gives the commit.
    fn push(&self, site: &Site, time: &str) -> String {
        git(&self.work, time, &["add", "--all"]);
        git(&self.work, time, &["commit", "--quiet", "--message", "A change"]);
        git(&self.work, time, &["push", "--quiet", "origin", "main"]);
        // What a static server's readers begin with.
        git(&site.folder.join(format!("{}.git", self.name)), time, &["update-server-info"]);
        git(&self.work, time, &["rev-parse", "HEAD"])
    }

    /// Names the last commit.
    fn tag(&self, site: &Site, name: &str) {
        git(&self.work, "@0 +0000", &["tag", name]);
        git(&self.work, "@0 +0000", &["push", "--quiet", "origin", name]);
        git(&site.folder.join(format!("{}.git", self.name)), "@0 +0000", &["update-server-info"]);
    }
}

/// A network whose maintainer uses the command line at the coordinator.
struct Scene {
    network: Network,
    site: Site,
    artel: PathBuf,
    home: PathBuf,
    folder: PathBuf,
    _served: Scratch,
}

impl Scene {
    async fn begin(ground: &Ground) -> Self {
        let served = Scratch::make();
        let site = Site::open(served.path().join("site"));
        let fetch = vec![format!("127.0.0.1:{}", site.port).parse().unwrap()];
        let mut network = Network::found(ground, &Plan { fetch, ..Plan::builders(2) });
        network.start().await;
        let home = network.node("coordinator").home.clone();
        fs::create_dir_all(home.path().join("keys")).unwrap();
        keys::save(&home.key("maintainer"), &network.maintainer).unwrap();
        std::os::unix::fs::symlink(ground.cache.join("archive"), home.archive()).unwrap();
        let folder = network.folder().join("work");
        fs::create_dir_all(&folder).unwrap();
        Self { artel: ground.artel.clone(), home: home.path().to_owned(), folder, network, site, _served: served }
    }

    async fn artel(&self, words: &[&str]) -> Said {
        run(&self.artel, &self.home, words).await
    }

    /// Keeps a recipe.
    async fn add(&self, text: &str) {
        let file = self.folder.join("recipe.toml");
        fs::write(&file, text).unwrap();
        let said = self.artel(&["recipe", "add", file.to_str().unwrap()]).await;
        assert_eq!(said.code, 0, "{said:?}");
    }

    fn command(&self, name: &str, more: &[&str]) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(&self.artel);
        command.args(["--json", "recipe", "run", name]).args(more);
        command.env("ARTEL_HOME", &self.home).stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// Runs a recipe and gives the exit code, the run and what was said.
    async fn run(&self, name: &str) -> (i32, RecipeRun, String) {
        let output = tokio::time::timeout(RUN_WITHIN, self.command(name, &["--wait"]).output()).await;
        let output = output.unwrap_or_else(|_| panic!("{name} did not end")).unwrap();
        let talk = String::from_utf8_lossy(&output.stderr).into_owned();
        let run = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{name}: {talk}"));
        (output.status.code().unwrap_or(-1), run, talk)
    }

    async fn view(&self, name: &str) -> RecipeView {
        self.network.coordinator().recipe(RecipeName::new(name).unwrap()).await.unwrap()
    }

    /// Has apt resolve and bring a package from the coordinator's repository, and gives what the program in it says.
    async fn apt(&self, package: &str, version: &str) -> String {
        let root = self.folder.join("apt");
        for folder in ["lists/partial", "archives/partial", "etc"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        let channel = &self.network.channel;
        let url = format!("http://{}/repo/{channel}/", self.network.public_address("coordinator"));
        let key = root.join("key.gpg");
        let repository = artel::config::Home::find(Some(self.home.clone())).unwrap().repository(channel);
        fs::copy(repository.join("public/archive-key.gpg"), &key).unwrap();
        let suite = &self.network.coordinator().repositories().await.unwrap()[0].suite;
        let source = format!("deb [signed-by={}] {url} {suite} main\n", key.display());
        fs::write(root.join("etc/sources.list"), source).unwrap();
        let apt = |words: &[&str]| {
            let option = |name: &str, path: &str| format!("{name}={}", root.join(path).display());
            let mut command = Command::new("apt-get");
            command.args([
                "-q",
                "-y",
                "-o",
                "Dir::Etc::sourceparts=-",
                "-o",
                "APT::Sandbox::User=root",
                "-o",
                "Debug::NoLocking=1",
            ]);
            for (name, path) in [
                ("Dir::Etc::sourcelist", "etc/sources.list"),
                ("Dir::State::lists", "lists"),
                ("Dir::Cache", "."),
                ("Dir::Cache::archives", "archives"),
            ] {
                command.args(["-o", &option(name, path)]);
            }
            let output = command.args(words).output().unwrap();
            assert!(output.status.success(), "apt-get {words:?}: {}", String::from_utf8_lossy(&output.stderr));
        };
        apt(&["update"]);
        apt(&["install", "--download-only", "--no-install-recommends", package]);
        let found = fs::read_dir(root.join("archives")).unwrap().flatten();
        let mut found = found.map(|e| e.path()).filter(|path| path.extension().is_some_and(|end| end == "deb"));
        let deb = found.find(|path| {
            path.to_string_lossy().contains(&version.replace('+', "%2b")) || path.to_string_lossy().contains(version)
        });
        let deb = deb.unwrap_or_else(|| panic!("apt did not take version {version}"));
        let unpacked = root.join("unpacked");
        let status = Command::new("dpkg-deb").arg("-x").arg(&deb).arg(&unpacked).status().unwrap();
        assert!(status.success());
        let said = Command::new(unpacked.join("usr/bin").join(package)).output().unwrap();
        String::from_utf8(said.stdout).unwrap()
    }
}

fn is_greater(a: &str, b: &str) -> bool {
    Command::new("dpkg").args(["--compare-versions", a, "gt", b]).status().unwrap().success()
}

/// Unpacks the fixture's source into a folder.
fn unpack_tiny(into: &Path) {
    fs::create_dir_all(into).unwrap();
    let tar = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/deb/artel-tiny_1.0.tar.xz");
    let status = Command::new("tar").args(["--strip-components=1", "-xf", tar, "-C"]).arg(into).status().unwrap();
    assert!(status.success());
}

fn skip_reason(run: &RecipeRun) -> &str {
    match &run.decision {
        Some(Decision::Skip(reason)) => reason,
        other => panic!("{other:?} is no skip"),
    }
}

#[tokio::test]
async fn two_pushes_on_one_day_and_three_runs_are_two_builds_and_a_skip() {
    let Some(ground) = ground().await else { return };
    let ground = ground.with(&FETCH_TOOLS).await;
    let mut scene = Scene::begin(&ground).await;
    let (upstream, packaging) = (
        Repository::found(&scene.site, &scene.folder, "tiny"),
        Repository::found(&scene.site, &scene.folder, "tiny-debian"),
    );
    unpack_tiny(&upstream.work);
    fs::rename(upstream.work.join("debian"), packaging.work.join("debian")).unwrap();
    // What a checkout would change, and an export would leave out, is there all the same.
    fs::write(upstream.work.join(".gitattributes"), "*.txt export-ignore eol=crlf\n").unwrap();
    fs::write(upstream.work.join("notes.txt"), "one line\n").unwrap();
    let first = upstream.push(&scene.site, "2026-11-20T10:00:00 +0000");
    packaging.push(&scene.site, "2026-11-20T09:00:00 +0000");

    let text = format!(
        "name = \"tiny\"\nchannel = \"main\"\nkind = \"deb\"\nflavour = \"ci\"\n\n[upstream]\ngit = \"{}\"\n\
         reference = \"main\"\n\n[packaging]\ngit = \"{}\"\n",
        scene.site.url("tiny.git"),
        scene.site.url("tiny-debian.git")
    );
    scene.add(&text).await;
    let exported = scene.artel(&["recipe", "export", "tiny"]).await;
    assert!(exported.code == 0 && exported.out.contains("kind = \"deb\""), "{exported:?}");
    scene.add(&exported.out).await;
    assert_eq!(scene.view("tiny").await.recipe.number, 2, "what was exported is a recipe again");
    let listed = scene.artel(&["recipe", "list"]).await;
    assert!(listed.out.contains("deb ci") && listed.out.contains("tiny.git"), "{listed:?}");

    // The first run is cut off while its fetch runs, and goes on.
    let mut cut_off = scene.command("tiny", &["--wait"]).spawn().unwrap();
    let fetch = until("the first run has asked for its fetch", STEP_WITHIN, async || {
        scene.view("tiny").await.runs.first().and_then(|run| run.jobs.fetch)
    })
    .await;
    cut_off.kill().await.unwrap();
    let (code, run, talk) = scene.run("tiny").await;
    assert_eq!((code, run.run, run.jobs.fetch), (0, 1, Some(fetch)), "{talk}\n{run:#?}");
    assert!(matches!(run.decision, Some(Decision::Build(_))), "{run:#?}");
    let first_version = run.version.unwrap().to_string();
    assert_eq!(first_version, "1.0+git20261120100000.2");
    assert!(run.revisions.iter().any(|revision| revision.what == first), "{:#?}", run.revisions);
    let built = run.jobs.builds[0];
    assert_eq!(scene.network.coordinator().job(built).await.unwrap().summary.state, JobState::Published);
    assert_eq!(scene.apt("artel-tiny", &first_version).await, "tiny\n");

    // What is kept of recipes and runs outlives the coordinator.
    let before = scene.view("tiny").await;
    scene.network.node("coordinator").kill();
    scene.network.node("coordinator").start();
    scene.network.meet().await;
    assert_eq!(scene.view("tiny").await, before);

    // A second push on the same day, five seconds after the first.
    let main = upstream.work.join("main.c");
    fs::write(&main, fs::read_to_string(&main).unwrap().replace("\"tiny\"", "\"tinier\"")).unwrap();
    upstream.push(&scene.site, "2026-11-20T10:00:05 +0000");
    let (code, run, talk) = scene.run("tiny").await;
    assert!(code == 0 && matches!(run.decision, Some(Decision::Build(_))), "{talk}\n{run:#?}");
    let second_version = run.version.unwrap().to_string();
    assert_eq!(second_version, "1.0+git20261120100005.3");
    assert!(is_greater(&second_version, &first_version));
    assert_eq!(scene.apt("artel-tiny", &second_version).await, "tinier\n");

    let (code, run, talk) = scene.run("tiny").await;
    assert!(code == 0 && run.state == RunState::Ended && run.jobs.fetch.is_none(), "{talk}\n{run:#?}");
    assert_eq!(skip_reason(&run), "same commit, skipped");
    let runs = scene.view("tiny").await.runs;
    assert_eq!(runs.iter().map(|run| run.jobs.builds.len()).collect::<Vec<_>>(), [1, 1, 0]);
    let shown = scene.artel(&["recipe", "show", "tiny"]).await;
    assert!(shown.out.contains("same commit, skipped"), "{shown:?}");
    println!("figure: {}", shown.out);
    let gone = scene.artel(&["recipe", "remove", "tiny"]).await;
    assert_eq!(gone.code, 0, "{gone:?}");
    assert_eq!(scene.artel(&["recipe", "show", "tiny"]).await.code, 1);
}

#[tokio::test]
async fn a_release_is_built_once_and_strange_hosts_and_changed_tarballs_are_refused() {
    let Some(ground) = ground().await else { return };
    let ground = ground.with(&FETCH_TOOLS).await;
    let scene = Scene::begin(&ground).await;
    unpack_tiny(&scene.folder.join("artel-tiny-1.0"));
    let tarball = scene.site.folder.join("artel-tiny-1.0.tar.gz");
    let status =
        Command::new("tar").arg("-C").arg(&scene.folder).arg("-czf").arg(&tarball).arg("artel-tiny-1.0").status();
    assert!(status.unwrap().success());
    let sha256 = Sha256::of(&fs::read(&tarball).unwrap());
    let recipe = |name: &str, url: &str, sha256: &str| {
        format!(
            "name = \"{name}\"\nchannel = \"main\"\nkind = \"deb\"\nflavour = \"release\"\n\n[upstream]\ntarball = \"{url}\"\n\
             {sha256}"
        )
    };
    let url = scene.site.url("artel-tiny-1.0.tar.gz");
    scene.add(&recipe("tiny", &url, &format!("sha256 = \"{sha256}\"\n"))).await;
    let (code, run, talk) = scene.run("tiny").await;
    assert!(code == 0 && matches!(run.decision, Some(Decision::Build(_))), "{talk}\n{run:#?}");
    assert_eq!(run.version.as_ref().unwrap().as_str(), "1.0");
    let fetched = run.jobs.fetch;
    let (code, run, talk) = scene.run("tiny").await;
    assert_eq!((code, run.jobs.fetch, run.jobs.builds.len()), (0, fetched, 0), "{talk}\n{run:#?}");
    assert_eq!(skip_reason(&run), "equal version 1.0, skipped");

    // The same version from a recipe that never built it: the channel has it.
    scene.add(&recipe("again", &url, "")).await;
    let (_, run, talk) = scene.run("again").await;
    assert_eq!(skip_reason(&run), "equal version 1.0, skipped", "{talk}");

    // Another file behind the address.
    scene.add(&recipe("changed", &url, &format!("sha256 = \"{}\"\n", Sha256::of(b"something else")))).await;
    let (code, run, talk) = scene.run("changed").await;
    let RunState::Failed(why) = &run.state else { panic!("{talk}\n{run:#?}") };
    assert!(code == 4 && why.contains(&format!("has sha256 {sha256}, wanted")), "{why}");

    // A redirect to a host that no owner lists.
    scene.add(&recipe("away", &scene.site.url("away/artel-tiny-1.0.tar.gz"), "")).await;
    let (code, run, talk) = scene.run("away").await;
    let RunState::Failed(why) = &run.state else { panic!("{talk}\n{run:#?}") };
    let strange = format!("localhost:{}", scene.site.port);
    assert!(code == 4 && why.contains(&format!("{strange} is not among the hosts")), "{why}");

    // A host that no owner lists: nobody is asked, and the job says why.
    scene.add(&recipe("strange", &format!("http://{strange}/artel-tiny-1.0.tar.gz"), "")).await;
    let mut waiting = scene.command("strange", &[]).spawn().unwrap();
    let job = until("the fetch is asked for", STEP_WITHIN, async || {
        scene.view("strange").await.runs.first().and_then(|run| run.jobs.fetch)
    })
    .await;
    let detail = scene.network.coordinator().job(job).await.unwrap();
    assert!(detail.attempts.is_empty() && detail.summary.why.contains(&format!("fetch from {strange}")), "{detail:#?}");
    let said = scene.artel(&["job", "cancel", &job.to_string()]).await;
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(waiting.wait().await.unwrap().code(), Some(4));
}

const SPEC: &str = "\
Name:           tinier
Version:        1.0
Release:        1%{?dist}
Summary:        One word
License:        Apache-2.0
Source0:        https://example.org/%{name}-%{version}.tar.gz
BuildRequires:  gcc

%description
It says one word.

%prep
%setup -q

%build
gcc %{optflags} -o tinier main.c

%install
install -D -m 755 tinier %{buildroot}%{_bindir}/tinier

%files
%{_bindir}/tinier

%changelog
* Fri Nov 20 2026 Ada <ada@example.org> - 1.0-1
- Say a word.
";

#[tokio::test]
async fn rpms_follow_two_repositories_too() {
    let Some(ground) = ground().await else { return };
    let ground = ground.with(&FETCH_TOOLS).await.with(&["rpm"]).await;
    let scene = Scene::begin(&ground).await;
    let (upstream, packaging) = (
        Repository::found(&scene.site, &scene.folder, "tinier"),
        Repository::found(&scene.site, &scene.folder, "tinier-rpm"),
    );
    fs::write(upstream.work.join("main.c"), "#include <stdio.h>\nint main(void) { puts(\"tinier\"); return 0; }\n")
        .unwrap();
    upstream.push(&scene.site, "2026-11-20T10:00:00 +0000");
    fs::write(packaging.work.join("tinier.spec"), SPEC).unwrap();
    packaging.push(&scene.site, "2026-11-20T09:00:00 +0000");
    scene
        .add(&format!(
            "name = \"tinier\"\nchannel = \"main\"\nkind = \"rpm\"\nflavour = \"ci\"\nrequires = [\"gcc=\"]\nmacros = [\"dist .art1\"]\n\n[upstream]\n\
             git = \"{}\"\n\n[packaging]\ngit = \"{}\"\nreference = \"refs/heads/main\"\n",
            scene.site.url("tinier.git"),
            scene.site.url("tinier-rpm.git")
        ))
        .await;
    let (code, run, talk) = scene.run("tinier").await;
    assert!(code == 0 && matches!(run.decision, Some(Decision::Build(_))), "{talk}\n{run:#?}");
    assert_eq!(run.version.as_ref().unwrap().as_str(), "1.0^git20261120100000.2-1.art1");
    let detail = scene.network.coordinator().job(run.jobs.builds[0]).await.unwrap();
    let files = &detail.published.as_ref().unwrap().files;
    assert!(files.iter().any(|file| file.ends_with("/tinier-1.0^git20261120100000.2-1.art1.x86_64.rpm")), "{files:?}");
    let (code, run, talk) = scene.run("tinier").await;
    assert_eq!((code, skip_reason(&run)), (0, "same commit, skipped"), "{talk}");

    // A commit of the packaging alone is a newer version, too.
    fs::write(packaging.work.join("tinier.spec"), SPEC.replace("One word", "A word")).unwrap();
    packaging.push(&scene.site, "2026-11-20T09:30:00 +0000");
    let (code, run, talk) = scene.run("tinier").await;
    assert!(code == 0 && matches!(run.decision, Some(Decision::Build(_))), "{talk}\n{run:#?}");
    assert_eq!(run.version.as_ref().unwrap().as_str(), "1.0^git20261120100000.3-1.art1");
}

/// Packs a folder as a release's tarball into the site.
fn release(scene: &Scene, folder: &Path, version: &str) {
    let name = format!("artel-tiny-{version}");
    let mut command = Command::new("tar");
    command.arg("-C").arg(folder).arg(format!("--transform=s,^\\.,{name},")).arg("-czf");
    assert!(command.arg(scene.site.folder.join(format!("{name}.tar.gz"))).arg(".").status().unwrap().success());
}

#[tokio::test]
async fn debian_watch_leads_to_the_newest_release_by_the_rules_of_uscan() {
    let Some(ground) = ground().await else { return };
    let ground = ground.with(&FETCH_TOOLS).await.with(&WATCH_TOOLS).await;
    let scene = Scene::begin(&ground).await;
    let packaging = Repository::found(&scene.site, &scene.folder, "tiny-debian");
    let tree = scene.folder.join("tree");
    unpack_tiny(&tree);
    let debian = packaging.work.join("debian");
    fs::rename(tree.join("debian"), &debian).unwrap();
    fs::write(debian.join("source/format"), "3.0 (quilt)\n").unwrap();
    let changelog = fs::read_to_string(debian.join("changelog")).unwrap();
    fs::write(debian.join("changelog"), changelog.replacen("(1.0)", "(1.0-1)", 1)).unwrap();
    let watch = |text: String| fs::write(debian.join("watch"), format!("version=4\n{text} debian uupdate\n")).unwrap();
    watch(format!("{} @PACKAGE@@ANY_VERSION@@ARCHIVE_EXT@", scene.site.url("")));
    packaging.push(&scene.site, "2026-11-20T09:00:00 +0000");
    release(&scene, &tree, "0.9");
    release(&scene, &tree, "1.0");
    let recipe = |name: &str, by: &str| {
        format!(
            "name = \"{name}\"\nchannel = \"main\"\nkind = \"deb\"\nflavour = \"release\"\n\n[upstream]\nby = \"{by}\"\n\
             hosts = [\"127.0.0.1:{}\"]\n\n[packaging]\ngit = \"{}\"\n",
            scene.site.port,
            scene.site.url("tiny-debian.git")
        )
    };
    scene.add(&recipe("tiny", "watch")).await;
    let (code, run, talk) = scene.run("tiny").await;
    assert!(code == 0 && matches!(run.decision, Some(Decision::Build(_))), "{talk}\n{run:#?}");
    assert_eq!(run.version.as_ref().unwrap().as_str(), "1.0-1");
    let first = run.jobs.fetch;
    let (code, run, talk) = scene.run("tiny").await;
    assert_eq!((code, skip_reason(&run)), (0, "equal version 1.0-1, skipped"), "{talk}");
    assert_ne!(run.jobs.fetch, first, "upstream was asked again");

    // A release upstream, of which the packaging knows nothing.
    let main = tree.join("main.c");
    fs::write(&main, fs::read_to_string(&main).unwrap().replace("\"tiny\"", "\"tinier\"")).unwrap();
    release(&scene, &tree, "1.1");
    let (code, run, talk) = scene.run("tiny").await;
    assert!(code == 0 && matches!(run.decision, Some(Decision::Build(_))), "{talk}\n{run:#?}");
    assert_eq!(run.version.as_ref().unwrap().as_str(), "1.1-1");
    assert_eq!(scene.apt("artel-tiny", "1.1-1").await, "tinier\n");

    // Who builds only what is packaged takes the changelog's version.
    scene.add(&recipe("packaged", "watch-packaged")).await;
    let (code, run, talk) = scene.run("packaged").await;
    assert_eq!((code, skip_reason(&run)), (0, "1.0-1 is older than 1.1-1, skipped"), "{talk}");

    // The same by tags of a repository.
    let upstream = Repository::found(&scene.site, &scene.folder, "tiny");
    for entry in fs::read_dir(&tree).unwrap().flatten() {
        fs::copy(entry.path(), upstream.work.join(entry.file_name())).unwrap();
    }
    upstream.push(&scene.site, "2026-11-20T10:00:00 +0000");
    upstream.tag(&scene.site, "v1.2");
    watch(format!("opts=\"mode=git, gitmode=full\" {} refs/tags/v@ANY_VERSION@", scene.site.url("tiny.git")));
    packaging.push(&scene.site, "2026-11-20T11:00:00 +0000");
    let (code, run, talk) = scene.run("tiny").await;
    assert!(code == 0 && matches!(run.decision, Some(Decision::Build(_))), "{talk}\n{run:#?}");
    assert_eq!(run.version.as_ref().unwrap().as_str(), "1.2-1");

    // A watch file that leads to a host that no owner lists.
    let strange = format!("localhost:{}", scene.site.port);
    watch(format!("http://{strange}/ @PACKAGE@@ANY_VERSION@@ARCHIVE_EXT@"));
    packaging.push(&scene.site, "2026-11-20T12:00:00 +0000");
    let (code, run, talk) = scene.run("tiny").await;
    let RunState::Failed(why) = &run.state else { panic!("{talk}\n{run:#?}") };
    assert!(code == 4 && why.contains(&format!("{strange} is not among the hosts")), "{why}");
}

#[tokio::test]
async fn a_spec_names_its_sources_by_address() {
    let Some(ground) = ground().await else { return };
    let ground = ground.with(&FETCH_TOOLS).await.with(&["rpm"]).await;
    let scene = Scene::begin(&ground).await;
    let packaging = Repository::found(&scene.site, &scene.folder, "tinier-rpm");
    let folder = scene.folder.join("tinier-1.0");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("main.c"), "#include <stdio.h>\nint main(void) { puts(WORD); return 0; }\n").unwrap();
    let mut command = Command::new("tar");
    command.arg("-C").arg(&scene.folder).arg("-czf").arg(scene.site.folder.join("v1.0.tar.gz")).arg("tinier-1.0");
    assert!(command.status().unwrap().success());
    let patch = "--- a/main.c\n+++ b/main.c\n@@ -1,2 +1,3 @@\n #include <stdio.h>\n+#define WORD \"tinier\"\n int main(void) \
                 { puts(WORD); return 0; }\n";
    fs::write(scene.site.folder.join("word.patch"), patch).unwrap();
    // A name after the address, as of a forge's archive; a macro of the recipe; a patch from elsewhere.
    let address = "%{site}/v%{version}.tar.gz#/%{name}-%{version}.tar.gz\nPatch0: %{site}/word.patch";
    let spec = SPEC.replace("https://example.org/%{name}-%{version}.tar.gz", address);
    fs::write(packaging.work.join("tinier.spec"), spec.replace("%setup -q", "%autosetup -p1")).unwrap();
    packaging.push(&scene.site, "2026-11-20T09:00:00 +0000");
    scene
        .add(&format!(
            "name = \"tinier\"\nchannel = \"main\"\nkind = \"rpm\"\nflavour = \"release\"\nrequires = [\"gcc=\"]\n\
             macros = [\"site http://127.0.0.1:{port}\"]\n\n[upstream]\nby = \"spec\"\nhosts = [\"127.0.0.1:{port}\"]\n\n\
             [packaging]\ngit = \"{}\"\n",
            scene.site.url("tinier-rpm.git"),
            port = scene.site.port,
        ))
        .await;
    let (code, run, talk) = scene.run("tinier").await;
    assert!(code == 0 && matches!(run.decision, Some(Decision::Build(_))), "{talk}\n{run:#?}");
    let detail = scene.network.coordinator().job(run.jobs.builds[0]).await.unwrap();
    let files = &detail.published.as_ref().unwrap().files;
    assert!(files.iter().any(|file| file.ends_with("/tinier-1.0-1.x86_64.rpm")), "{files:?}");
    let (code, run, talk) = scene.run("tinier").await;
    assert_eq!((code, skip_reason(&run)), (0, "equal version 1.0-1, skipped"), "{talk}");
}
