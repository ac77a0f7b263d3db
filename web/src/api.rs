//! The JSON that programs read: one type per view, the same for the API, the pages and the client.
//!
//! The contract is additive: fields and words are added, never renamed, removed or given another meaning. Readers ignore
//! fields they do not know, lists that are missing are empty, and a state this version does not know reads as `unknown`.
//! Instants are RFC 3339 in UTC with milliseconds, hashes are lower-case hexadecimal, sizes are bytes.

mod artifact;
mod circumstance;
mod coordination;
mod error;
mod explanation;
mod filter;
mod job;
mod network;
mod outcome;
mod recipe;
mod reputation;
mod state;
mod time;
mod witness;

pub use artifact::{
    ArtifactQuery, ArtifactView, AttestationView, LinkSignature, Numbers, PackagePage, PackageView, RebuilderView,
};
pub use circumstance::Circumstance;
pub use coordination::{Coordination, Majority, MemberRole, MemberView};
pub use error::{ApiError, ErrorBody};
pub use explanation::{DifferenceForm, ExplanationView, QuoteView};
pub(crate) use filter::percent_encode;
pub use filter::{JobFilter, JobPage};
pub use job::{
    Agreement, AttemptView, Builder, Dissent, ExpectedView, FailureView, FileView, GroupView, JobDetail, JobLink,
    JobSummary, LogChunk, PublishedView, RequestView, ServiceView, StepView, Submitted, VerdictView,
};
pub use network::{
    BlobUsage, DrainRequest, DutyView, Metrics, NetworkView, News, PeerView, PolicyHistory, PolicyRecord, PolicyView,
    RepositoryView, Status, Stored,
};
pub use outcome::LoggedAttempt;
pub use recipe::RecipeView;
pub use reputation::{BreachDetail, ClassDetail, EvidenceView, PeerDetail};
pub use state::{AttemptState, JobState, VerdictWord};
pub use time::Time;
pub use witness::{ConflictView, DoubtView, WitnessAnswer};
