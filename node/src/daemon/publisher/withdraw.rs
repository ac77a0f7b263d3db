//! Taking back what may be out: afterwards the newest generation is known, with the job or without it.
//!
//! ```text
//!   ask everybody --found, made for the job------> continued under a number above all that may be out: it has the job
//!                 '-not found, or taken back since-> the same, and it is without the job
//! ```

use ledger::{Command, Doubt, Withdrawal};
use protocol::{ChannelName, JobId, message::Response};

use super::{
    Failure, Publisher,
    serve::{Done, Ending},
};
use crate::daemon::runs::Recorder;

impl Publisher {
    /// Makes a generation above all that may be out, and says whether it has the job.
    ///
    /// # Errors
    /// When it could not be made, or too few coordinators hold it; it is tried again.
    pub(super) async fn withdraw(&mut self, order: &Withdrawal, record: &Recorder) -> Result<Done, Failure> {
        let Withdrawal { channel, generation, .. } = order;
        record.step("ask everybody");
        self.catch_up(channel, Doubt::Since(order.since)).await?;
        let found = self.repository(channel)?.generation();
        let out = order.has_job(found);
        if out {
            self.note_found((order.job, *generation)).await?;
        }
        self.continue_found(channel, (found, *generation), record).await?;
        let (summary, ending) = if out {
            (format!("it was out in generation {found}; generation {generation} has it"), Ending::With(*generation))
        } else {
            (format!("generation {generation} is without it"), Ending::Without(*generation))
        };
        Ok(Done { summary, result: None, ending })
    }

    /// Has the coordinators remember that a generation will have the job, before anybody can see that generation.
    async fn note_found(&self, (job, generation): (JobId, u64)) -> Result<(), Failure> {
        let answer = self.decisions.decide(Command::Found { job, generation }).await;
        if answer == Response::Done {
            Ok(())
        } else {
            Err(Failure::from(format!("what was found could not be noted: {answer:?}")))
        }
    }

    /// Signs what is there once more, under a fresh number: it stands above whatever may be out.
    pub(super) async fn continue_found(
        &mut self,
        channel: &ChannelName,
        (found, generation): (u64, u64),
        record: &Recorder,
    ) -> Result<(), Failure> {
        record.step("write");
        record.say(&format!("the newest generation within reach is {found}; generation {generation} continues it"));
        let signers = self.signers_of_others().await;
        self.repository(channel)?.trust(signers)?;
        let published = self.write(channel, Vec::new(), generation).await?;
        self.show(channel, &published, record).await
    }

    /// Gives the job under which people see the publisher's work: a publication has an id of its own.
    pub(super) async fn shown_as(&self, job: JobId) -> JobId {
        let publication = ledger::service::publication_id(&job);
        let look = move |ledger: &ledger::Ledger| ledger.job(publication).is_some();
        if self.decisions.view(look).await == Some(true) { publication } else { job }
    }
}
