//! What is known of files and packages, for clients that others wrote and for people who ask by digest.
//!
//! ```text
//!  repositories that this node publishes or mirrors --manifest--> catalogue --bundle beside the package--> attestations
//!  ledger of a coordinator: its last jobs with a verdict ------------------------------------------------> attestations
//! ```
//! The first is asked first: it was proven before it came here. A node that finds nothing asks the coordinator, see
//! [`crate::handle`]. Of a job without a verdict no attestation is told. Nothing is decided here.

mod ledger;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use attest::{
    bundle::{BUNDLE_MAX, Bundle},
    link::{self, Link},
    staple,
    statement::{self, VerifiedAttestation},
    summary,
};
use protocol::{
    ChannelName, Hash, NetworkId, NodeId, OperatorName, Sha256,
    envelope::Signed,
    limits,
    message::Refusal,
    release::{Manifest, Release},
    words::RelativePath,
};
use tokio::sync::{Mutex, Semaphore};
use tracing::warn;
use web::api::{ArtifactQuery, ArtifactView, AttestationView, LinkSignature, PackagePage, PackageView, VerdictWord};

use super::Desk;
use crate::{
    clock,
    config::Mirror,
    daemon::{Policies, chain},
    publish::{
        apt::{BUNDLE_SUFFIX, KEYRING},
        catalogue::{Catalogue, Entry, Key},
        evidence::{self, Bar, Staples},
        sign::keyring::Keyring,
    },
};

/// The cursor of the last page: what no repository has.
pub const ELSEWHERE: &str = "*";
/// The view of files.
pub const ARTIFACTS: &str = "artifacts?";
/// The view of packages.
pub const PACKAGES: &str = "packages?";
/// Bundles that are read at one time; more wait. Each may have [`BUNDLE_MAX`] bytes.
const READ_AT_ONCE: usize = 4;

/// The catalogues of this node's repositories, each made when it is first asked for after a release.
pub(super) struct Catalogues {
    kept: Mutex<Kept>,
    reading: Semaphore,
}

type Kept = BTreeMap<ChannelName, Catalogued>;

/// What is known of one channel's newest release.
struct Catalogued {
    manifest: Hash,
    catalogue: Arc<Catalogue>,
    stocked: Stocked,
}

/// What is told of a release beside its number.
#[derive(Debug, Clone)]
pub struct Stocked {
    /// The packages.
    pub packages: u64,
    /// The fingerprints of the OpenPGP certificates with which it is checked, as its own keyring has them.
    pub fingerprints: Vec<String>,
}

impl Default for Catalogues {
    fn default() -> Self {
        Self { kept: Mutex::default(), reading: Semaphore::new(READ_AT_ONCE) }
    }
}

/// Who attests a file, and the signed summary of what that proves.
type Told = (Vec<AttestationView>, Option<String>);

/// A file that a repository of this node has.
struct Found {
    channel: ChannelName,
    name: String,
    bundle: PathBuf,
    /// The proof from the log, where there is one.
    log_proof: PathBuf,
    sha256: Sha256,
}

impl Desk {
    /// Gives the root of a channel's repository that this node serves; see [`crate::config::Home::served`].
    pub fn root_of(&self, channel: &ChannelName) -> Option<PathBuf> {
        let shared = &self.shared;
        shared.home.served(channel, (shared.is_candidate(), Mirror::follows(shared.config.mirror.as_ref(), channel)))
    }

    /// Gives how many packages the newest release of a channel has that this node serves, and whose keys sign it.
    pub async fn stocked(&self, channel: &ChannelName) -> Option<Stocked> {
        let mut kept = self.parts.catalogues.kept.lock().await;
        self.catalogue(&mut kept, channel).await.ok()?.map(|catalogued| catalogued.stocked.clone())
    }

    /// Finds files in the repositories of this node, and in its ledger where it has one.
    ///
    /// # Errors
    /// When the database or a disk fails.
    pub async fn artifacts(&self, wanted: &ArtifactQuery) -> Result<Vec<ArtifactView>, Refusal> {
        let mut views: Vec<ArtifactView> = Vec::new();
        for found in self.lookup(wanted).await? {
            let (attestations, summary) = match wanted {
                ArtifactQuery::Package { .. } => (Vec::new(), None),
                ArtifactQuery::Digest(_) | ArtifactQuery::Numbers(_) => self.evidence(&found).await?,
            };
            let view = artifact(found.name, found.sha256, VerdictWord::Reproduced);
            merge(&mut views, ArtifactView { channel: Some(found.channel), attestations, summary, ..view });
        }
        let (Some(prefix), Some(decisions)) = (prefix(wanted), self.decisions()) else { return Ok(views) };
        let attested = decisions.view(move |ledger| ledger::attested(ledger, &prefix)).await.unwrap_or_default();
        let policies = self.shared.policies();
        for (verdict, sha256, attestation) in attested {
            let Some((name, said)) = said(&policies, &attestation, &sha256) else { continue };
            merge(&mut views, ArtifactView { attestations: vec![said], ..artifact(name, sha256, verdict) });
        }
        views.truncate(ArtifactView::FOUND_MAX);
        Ok(views)
    }

    async fn lookup(&self, wanted: &ArtifactQuery) -> Result<Vec<Found>, Refusal> {
        let prefix = prefix(wanted);
        let mut all = Vec::new();
        for catalogue in self.catalogues().await? {
            let Some(root) = self.root_of(catalogue.channel()) else { continue };
            let found = |entry: Entry<'_>| Found {
                channel: catalogue.channel().clone(),
                name: entry.file().to_owned(),
                bundle: root.join(format!("{}{BUNDLE_SUFFIX}", entry.path)),
                log_proof: root.join(format!("{}{}", entry.path, staple::PROOF_SUFFIX)),
                sha256: *entry.sha256,
            };
            let room = ArtifactView::FOUND_MAX - all.len();
            match (wanted, &prefix) {
                (ArtifactQuery::Package { name, version, architecture }, _) => {
                    all.extend(catalogue.named(name.as_str(), version.as_str(), *architecture).take(room).map(found));
                }
                (ArtifactQuery::Digest(_) | ArtifactQuery::Numbers(_), Some(prefix)) => {
                    all.extend(catalogue.with_digest(prefix).take(room).map(found));
                }
                (ArtifactQuery::Digest(_) | ArtifactQuery::Numbers(_), None) => {}
            }
        }
        Ok(all)
    }

    /// Reads who attests a file from the evidence beside it, and says in this node's name what that proves.
    async fn evidence(&self, found: &Found) -> Result<Told, Refusal> {
        let (path, proof) = (found.bundle.clone(), found.log_proof.clone());
        let (sha256, channel) = (found.sha256, found.channel.clone());
        let (shared, policies) = (Arc::clone(&self.shared), self.shared.policies());
        let _permit = self.parts.catalogues.reading.acquire().await.map_err(|_| busy("the daemon is stopping"))?;
        let read = tokio::task::spawn_blocking(move || {
            let bundle = read(&path)?;
            let trust = shared.trust().map_err(|e| chain(&e))?;
            let bar = Bar { trust: &trust, channel: &channel };
            let log = std::fs::read(&proof).ok();
            let staples = Staples { lines: None, proof: log.as_deref() };
            let attested = told(&bundle, &shared.network, &policies, &sha256)?;
            let proof = attested.first().and_then(|one| evidence::prove(&bar, &bundle, &staples, one.job).ok());
            let summary = proof.map(|chain| summary::sign(&chain.proof, clock::now(), &shared.key));
            Ok::<Told, String>((attested, summary.and_then(|envelope| String::from_utf8(envelope).ok())))
        });
        match read.await {
            Ok(Ok(told)) => Ok(told),
            Ok(Err(why)) => {
                warn!(file = found.name, %why, "evidence in a repository cannot be read");
                Ok((Vec::new(), None))
            }
            Err(_) => Err(busy("the daemon is stopping")),
        }
    }

    /// Gives a page of the packages of this node's repositories. After the last one comes [`ELSEWHERE`].
    ///
    /// # Errors
    /// When the database or a disk fails.
    pub async fn packages(&self, after: Option<&str>) -> Result<PackagePage, Refusal> {
        let policies = self.shared.policies();
        let after =
            after.map(|after| cursor(after).ok_or_else(|| Refusal::Invalid("no such place in the list".into())));
        let after = after.transpose()?;
        let mut page = PackagePage { packages: Vec::new(), next: Some(ELSEWHERE.to_owned()) };
        for catalogue in self.catalogues().await? {
            let channel = catalogue.channel();
            let key = match after {
                Some((at, _)) if channel.as_str() < at => continue,
                Some((at, key)) if channel.as_str() == at => Some(key),
                Some(_) | None => None,
            };
            let suite = policies.current().channel(channel).map(|known| known.suite.clone());
            for entry in catalogue.after(key).filter(|entry| entry.path.ends_with(".deb")) {
                if page.packages.len() == PackagePage::PACKAGES_MAX {
                    return Ok(page);
                }
                page.packages.push(PackageView {
                    name: entry.name.to_owned(),
                    version: entry.version.to_owned(),
                    architecture: entry.arch,
                    verdict: VerdictWord::Reproduced,
                    channel: channel.clone(),
                    suite: suite.clone(),
                    path: RelativePath::new(entry.path).ok(),
                });
                if page.packages.len() == PackagePage::PACKAGES_MAX {
                    let (name, version, arch, path) = entry.key();
                    page.next = Some([channel.as_str(), name, version, arch, path].join("\n"));
                }
            }
        }
        if page.packages.len() == PackagePage::PACKAGES_MAX {
            page.next = Some(ELSEWHERE.to_owned());
        }
        Ok(page)
    }

    /// Says whether this node has a repository at all.
    ///
    /// # Errors
    /// When the database or a disk fails.
    pub async fn has_repository(&self) -> Result<bool, Refusal> {
        Ok(!self.catalogues().await?.is_empty())
    }

    /// Gives the packages that builders could not reproduce, and those that wait for a verdict, as far as this ledger tells.
    pub async fn elsewhere(&self) -> Option<PackagePage> {
        let decisions = self.decisions()?;
        decisions.view(|ledger| PackagePage { packages: ledger::packages(ledger), next: None }).await
    }

    /// Answers the views `artifacts?<query as JSON>`, `packages?` and `packages?<cursor>`, for nodes that found nothing; none for
    /// another view.
    pub(super) async fn found(&self, path: &str) -> Result<Option<Vec<u8>>, Refusal> {
        if let Some(query) = path.strip_prefix(ARTIFACTS) {
            let query = serde_json::from_str(query).map_err(|_| Refusal::Invalid("the query is not valid".into()))?;
            let views = self.artifacts(&query).await?;
            return Ok(Some(serde_json::to_vec(&views).expect("a view is plain data")));
        }
        let page = match path.strip_prefix(PACKAGES) {
            None => return Ok(None),
            Some("") => self.packages(None).await?,
            Some(ELSEWHERE) => self.elsewhere().await.ok_or_else(|| busy("the coordinator is stopping"))?,
            Some(after) => self.packages(Some(after)).await?,
        };
        Ok(Some(serde_json::to_vec(&page).expect("a view is plain data")))
    }

    /// Gives the catalogues of the repositories here, in the order of their channels.
    async fn catalogues(&self) -> Result<Vec<Arc<Catalogue>>, Refusal> {
        let policies = self.shared.policies();
        let channels = policies.current().channels.iter().map(|channel| &channel.name);
        let held: Vec<&ChannelName> = channels.filter(|channel| self.root_of(channel).is_some()).collect();
        let mut kept = self.parts.catalogues.kept.lock().await;
        kept.retain(|channel, _| held.contains(&channel));
        for channel in held {
            self.catalogue(&mut kept, channel).await?;
        }
        Ok(kept.values().map(|known| Arc::clone(&known.catalogue)).collect())
    }

    /// Catalogues the newest release of a channel that this node has a tree of, unless that is done; none where it has no release.
    async fn catalogue<'a>(
        &self,
        kept: &'a mut Kept,
        channel: &ChannelName,
    ) -> Result<Option<&'a Catalogued>, Refusal> {
        let failed = |why: String| {
            warn!(%channel, why, "a repository cannot be catalogued");
            busy("a repository of this node cannot be read")
        };
        let Some(root) = self.root_of(channel) else { return Ok(None) };
        let name = channel.clone();
        let stored = self.shared.store.run(move |store| store.release(&name)).await;
        let Some(stored) = stored.map_err(|e| failed(chain(&e)))? else { return Ok(None) };
        let release = Signed::<Release>::read(&stored.bytes).and_then(|s| s.verify(Some(&self.shared.network)));
        let manifest = release.map_err(|e| failed(chain(&e)))?.get().manifest;
        if kept.get(channel).is_none_or(|known| known.manifest != manifest) {
            let bytes = self.shared.blobs.read(&manifest, limits::MANIFEST_MAX as u64).await;
            let bytes = bytes.map_err(|e| failed(chain(&e)))?;
            let name = channel.clone();
            let made = tokio::task::spawn_blocking(move || Catalogued::of(&name, (manifest, &bytes), &root));
            let made = made.await.map_err(|e| failed(e.to_string()))?.map_err(failed)?;
            kept.insert(channel.clone(), made);
        }
        Ok(kept.get(channel))
    }
}

impl Catalogued {
    fn of(channel: &ChannelName, (hash, bytes): (Hash, &[u8]), root: &Path) -> Result<Self, String> {
        let manifest = Manifest::from_bytes(bytes).map_err(|e| chain(&e))?;
        let keyring = std::fs::read(root.join(KEYRING)).ok().and_then(|bytes| Keyring::read(&bytes).ok());
        let certificates = keyring.iter().flat_map(|keyring| keyring.certificates());
        let fingerprints = certificates.map(|certificate| certificate.fingerprint().to_owned()).collect();
        let stocked = Stocked { packages: manifest.packages.len() as u64, fingerprints };
        Ok(Self { manifest: hash, catalogue: Arc::new(Catalogue::of(channel, &manifest)), stocked })
    }
}

/// Reads [`PackagePage::next`]: the channel and the last package.
fn cursor(after: &str) -> Option<(&str, Key<'_>)> {
    match after.split('\n').collect::<Vec<_>>()[..] {
        [channel, name, version, arch, path] => Some((channel, (name, version, arch, path))),
        _ => None,
    }
}

fn prefix(wanted: &ArtifactQuery) -> Option<Vec<u8>> {
    match wanted {
        ArtifactQuery::Digest(sha256) => Some(sha256.as_bytes().to_vec()),
        ArtifactQuery::Numbers(numbers) => numbers.prefix().map(Vec::from),
        ArtifactQuery::Package { .. } => None,
    }
}

fn artifact(name: String, sha256: Sha256, verdict: VerdictWord) -> ArtifactView {
    let link = Link::of(&name, &sha256).map(|link| link.text());
    ArtifactView { name, sha256, verdict, channel: None, link, attestations: Vec::new(), summary: None }
}

/// Adds what was found; of one file under one name there is one view, with everybody's attestations.
fn merge(views: &mut Vec<ArtifactView>, found: ArtifactView) {
    let same = |view: &&mut ArtifactView| view.sha256 == found.sha256 && view.name == found.name;
    let Some(view) = views.iter_mut().find(same) else { return views.push(found) };
    for attestation in found.attestations {
        if !view.attestations.contains(&attestation) {
            view.attestations.push(attestation);
        }
    }
    if found.verdict == VerdictWord::Reproduced {
        view.verdict = found.verdict;
    }
}

fn read(path: &std::path::Path) -> Result<Bundle, String> {
    let size = std::fs::metadata(path).map_err(|e| e.to_string())?.len();
    if size > BUNDLE_MAX as u64 {
        return Err(format!("{size} bytes are too many"));
    }
    Bundle::from_bytes(&std::fs::read(path).map_err(|e| e.to_string())?).map_err(|e| chain(&e))
}

fn told(
    bundle: &Bundle,
    network: &NetworkId,
    policies: &Policies,
    sha256: &Sha256,
) -> Result<Vec<AttestationView>, String> {
    let mut all = Vec::new();
    for attestation in &bundle.attestations {
        let attestation = statement::read(&attestation.0, network).map_err(|e| chain(&e))?;
        all.extend(said(policies, &attestation, sha256).map(|(_, said)| said));
    }
    Ok(all)
}

/// Gives what an attestation says of a file, and the file's name there.
fn said(policies: &Policies, attestation: &VerifiedAttestation, sha256: &Sha256) -> Option<(String, AttestationView)> {
    let stated = attestation.get();
    let output = stated.outputs.iter().find(|output| output.sha256 == *sha256)?;
    let signed = attestation.links().into_iter().find(|(linked, _)| linked == output);
    let link = signed.map(|(_, signature)| LinkSignature {
        keyid: link::keyid(&signature.key),
        sig: link::to_hex(&signature.bytes),
    });
    // Line breaks of JSON stand between its words only; in a list with an envelope a line they would cut it.
    let envelope = String::from_utf8(attestation.bytes().to_vec()).ok()?.replace(['\n', '\r'], " ");
    let (job, node) = (stated.task.job, attestation.signer());
    let view = AttestationView { job, node, operator: operator_of(policies, &node), envelope, link };
    Some((output.name.to_string(), view))
}

/// Who answers for a node by the newest policy that names it.
fn operator_of(policies: &Policies, node: &NodeId) -> Option<OperatorName> {
    policies.chain().iter().rev().find_map(|policy| policy.get().operator_of(node).cloned())
}

fn busy(why: &str) -> Refusal {
    Refusal::Busy(why.into())
}
