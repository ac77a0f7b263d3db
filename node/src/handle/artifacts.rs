//! What is known of files and packages: from what lies here, else from the coordinator.

use std::time::Duration;

use attest::{bundle::Bundle, link, statement};
use bytes::Bytes;
use protocol::{JobId, NodeId, OperatorName, PublicKey, Sha256};
use web::{
    Backend,
    api::{ApiError, ArtifactQuery, ArtifactView, PackagePage, RebuilderView, VerdictWord},
};

use super::{Handle, from_refusal, internal};
use crate::serve::artifacts::{ARTIFACTS, ELSEWHERE, PACKAGES};

/// How long the coordinator may take: whoever asks goes on to the next rebuilder.
const ASK_WITHIN: Duration = Duration::from_secs(5);
/// The largest `.buildinfo` that is fetched, in bytes.
const BUILDINFO_MAX: u64 = 1024 * 1024;

/// Finds files here, else asks the coordinator.
pub(super) async fn artifacts(handle: &Handle, wanted: ArtifactQuery) -> Result<Vec<ArtifactView>, ApiError> {
    let here = handle.desk.artifacts(&wanted).await.map_err(from_refusal)?;
    if !here.is_empty() || handle.shared.leads().is_some() {
        return Ok(here);
    }
    let query = serde_json::to_string(&wanted).map_err(|e| internal("query", &e))?;
    match there(handle, format!("{ARTIFACTS}{query}")).await {
        // A mirror knows what it has, whoever else can be reached.
        Err(ApiError::Unavailable { .. }) if handle.desk.has_repository().await.map_err(from_refusal)? => Ok(here),
        answer => answer,
    }
}

/// Gives a page of packages: of the repositories here, or else there, and at the end what the coordinator's ledger tells.
pub(super) async fn packages(handle: &Handle, after: Option<String>) -> Result<PackagePage, ApiError> {
    let has_repository = handle.desk.has_repository().await.map_err(from_refusal)?;
    let leads = handle.shared.leads().is_some();
    if after.as_deref() == Some(ELSEWHERE) {
        let here = if leads { handle.desk.elsewhere().await } else { None };
        return match here {
            Some(page) => Ok(page),
            None => match there(handle, format!("{PACKAGES}{ELSEWHERE}")).await {
                Err(ApiError::Unavailable { .. }) if has_repository => Ok(PackagePage::default()),
                answer => answer,
            },
        };
    }
    if has_repository || leads {
        return handle.desk.packages(after.as_deref()).await.map_err(from_refusal);
    }
    there(handle, format!("{PACKAGES}{}", after.unwrap_or_default())).await
}

async fn there<T: serde::de::DeserializeOwned>(handle: &Handle, path: String) -> Result<T, ApiError> {
    let late = || ApiError::Unavailable { reason: "the coordinator does not answer in time".to_owned() };
    let json = tokio::time::timeout(ASK_WITHIN, handle.view_bytes(path)).await.map_err(|_| late())??;
    serde_json::from_slice(&json).map_err(|e| internal("view", &e))
}

/// Gives an operator's keys.
pub(super) fn rebuilder(handle: &Handle, operator: Option<OperatorName>) -> Result<RebuilderView, ApiError> {
    let policies = handle.shared.policies();
    let own = handle.shared.id;
    let named = operator.or_else(|| policies.current().operator_of(&own).cloned());
    let named = named.ok_or_else(|| ApiError::NotFound {
        what: "an operator that answers for this node (ask below /rebuilder/OPERATOR for those of the network)"
            .to_owned(),
    })?;
    let known = policies.current().operators.iter().find(|known| known.name == named);
    let known = known.ok_or_else(|| ApiError::NotFound { what: format!("operator {named}") })?;
    let mut nodes: Vec<NodeId> = known.nodes.clone();
    nodes.sort_by_key(|node| *node != own);
    let keys = nodes.into_iter().map(|node| link::pem(&PublicKey::from(node))).collect();
    Ok(RebuilderView { operator: named, keys })
}

/// What a builder's build wrote of itself, by its attestation.
struct Written {
    node: NodeId,
    hash: protocol::Hash,
    sha256: Sha256,
}

/// Gives the `.buildinfo` of one operator's build, from this node or from the builder, as long as they keep it.
pub(super) async fn buildinfo(handle: &Handle, job: JobId, operator: Option<OperatorName>) -> Result<Bytes, ApiError> {
    let detail = handle.job(job).await?;
    let verdict = detail.verdict.filter(|verdict| verdict.word != VerdictWord::Pending);
    let missing = |what: &str| ApiError::NotFound { what: format!("{what} of job {}", job.short()) };
    let verdict = verdict.ok_or_else(|| missing("a verdict"))?;
    let bundle = Bundle::from_bytes(&handle.bundle(job).await?).map_err(|e| internal("bundle", &e))?;
    let policies = handle.shared.policies();
    let written = bundle.attestations.iter().find_map(|attestation| {
        let attestation = statement::read(&attestation.0, &handle.shared.network).ok()?;
        let by = policies.chain().iter().rev().find_map(|policy| policy.get().operator_of(&attestation.signer()));
        let wanted = operator.as_ref().map_or_else(
            || verdict.agree.is_empty() || by.is_some_and(|by| verdict.agree.contains(by)),
            |wanted| by == Some(wanted),
        );
        let file = attestation.get().byproducts.iter().find(|file| file.name.as_str().ends_with(".buildinfo"))?;
        wanted.then(|| Written { node: attestation.signer(), hash: file.hash, sha256: file.sha256 })
    });
    let written = written.ok_or_else(|| missing("a .buildinfo"))?;
    fetched(handle, job, &written).await
}

async fn fetched(handle: &Handle, job: JobId, written: &Written) -> Result<Bytes, ApiError> {
    let (shared, hash) = (&handle.shared, &written.hash);
    let failed = |e: crate::blobs::Error| internal("blobs", &e);
    if !shared.offers.contains(hash) {
        if shared.blobs.size(hash).await.map_err(failed)?.is_some() {
            // A builder names its file; it must not name content that lies here for another reason.
            return Err(ApiError::NotFound { what: format!("the .buildinfo of job {}", job.short()) });
        }
        let name = format!("job/{job}/{}-buildinfo", written.node.short());
        handle.fetch((*hash, BUILDINFO_MAX), &[written.node], &name).await?;
    }
    let bytes = shared.blobs.read(hash, BUILDINFO_MAX).await.map_err(failed)?;
    let text = std::str::from_utf8(&bytes).is_ok_and(|text| text.lines().any(|line| line == "Format: 1.0"));
    if !text || Sha256::of(&bytes) != written.sha256 {
        let reason = "what the builder attested as .buildinfo is no such file".to_owned();
        return Err(ApiError::Refused { reason });
    }
    Ok(bytes)
}
