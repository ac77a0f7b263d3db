//! Maintainers and roots: what they wish, asked again until somebody answers.

use protocol::{
    JobId,
    job::job_id,
    message::{Refusal, Response},
};

use super::{
    Asker, Event, FAULTS_UNTIL, JobNature, World,
    network::Place,
    records::{self, Change, Wanted},
};
use crate::Command;

/// How long people wait for an answer, in milliseconds.
const PATIENCE: u64 = 5000;

/// What somebody wishes, and what is known of it.
#[derive(Debug)]
pub(super) struct Wish {
    command: Command,
    pub(super) about: Option<JobId>,
    /// The last answer.
    pub(super) answer: Option<Response>,
    /// Whom they ask next.
    coordinator: usize,
}

impl Wish {
    /// Says whether nobody waits for an answer any more. Who was told to come again later may do so.
    pub(super) fn is_over(&self) -> bool {
        self.answer.is_some()
    }

    pub(super) fn is_cancel(&self) -> bool {
        matches!(self.command, Command::Order(_))
    }
}

impl World {
    /// Plans what people wish during a run.
    pub(super) fn plan_people(&mut self) {
        let network = self.group.network;
        for number in 0..self.random.between(1, 4) {
            let nature = match self.random.below(6) {
                0 => JobNature::Broken,
                1 => JobNature::Unstable,
                _ => JobNature::Good,
            };
            let wanted = Wanted {
                kind: if number.is_multiple_of(2) { "deb" } else { "command" },
                number,
                channel: usize::from(self.random.percent(60)),
                maintainer: usize::from(self.random.percent(30)),
            };
            let request = records::request(network, wanted);
            let job = job_id(&request);
            self.requests.insert(job, (request.clone(), nature));
            let begin = self.random.below(60_000);
            self.plan_wish(Command::Submit(request.clone()), Some(job), begin);
            if self.random.percent(20) {
                self.see("request replayed");
                let later = begin + 1 + self.random.below(FAULTS_UNTIL + 60_000);
                self.plan_wish(Command::Submit(request), Some(job), later);
            }
            if self.random.percent(10) {
                let later = begin + self.random.below(60_000);
                self.plan_wish(Command::Order(records::cancel(network, job)), Some(job), later);
            }
        }
        for number in 0..self.random.between(0, 2) {
            let request = records::promotion(network, number);
            let job = job_id(&request);
            self.requests.insert(job, (request.clone(), JobNature::Server));
            let begin = 20_000 + self.random.below(FAULTS_UNTIL);
            self.plan_wish(Command::Submit(request), Some(job), begin);
            if self.random.percent(20) {
                let later = begin + self.random.below(60_000);
                self.plan_wish(Command::Order(records::cancel(network, job)), Some(job), later);
            }
        }
        let mut changes = Vec::new();
        for _ in 0..self.random.below(3) {
            changes.push(Change::EVERY[usize::try_from(self.random.below(5)).unwrap()]);
            let time = 20_000 * changes.len() as u64 + self.random.below(60_000);
            let policy = records::successor(self.shape, &changes);
            self.plan_wish(Command::AdoptPolicy(policy), None, time);
        }
    }

    fn plan_wish(&mut self, command: Command, about: Option<JobId>, time: u64) {
        self.wishes.push(Wish { command, about, answer: None, coordinator: 0 });
        self.at(time, Event::Wish(self.wishes.len() - 1));
    }

    pub(super) fn wish(&mut self, number: usize) {
        let (members, other) = (self.group.members.len() as u64, self.random.percent(30));
        let anybody = usize::try_from(self.random.below(members)).unwrap();
        let wish = &mut self.wishes[number];
        if wish.is_over() {
            return;
        }
        if other {
            wish.coordinator = anybody;
        }
        let (to, command) = (wish.coordinator, Box::new(wish.command.clone()));
        self.send(Place::People, Place::Member(to), Event::Asked(to, Asker::Person(number), command));
        self.at(self.now + PATIENCE, Event::Wish(number));
    }

    pub(super) fn person_answered(&mut self, number: usize, response: &Response) {
        match response {
            Response::Refused(Refusal::NotCoordinator(Some(node))) => {
                if let Some(leader) = self.group.member_of(*node) {
                    self.wishes[number].coordinator = leader;
                    self.see("sent on to the leader");
                }
            }
            Response::Refused(Refusal::NotCoordinator(None)) => {}
            Response::Refused(Refusal::Busy(_)) => {
                self.see("told to come later");
                self.wishes[number].answer = Some(response.clone());
            }
            Response::Done
            | Response::Receipt(..)
            | Response::Record(_)
            | Response::Records(_)
            | Response::Providers(_)
            | Response::Lost(_)
            | Response::Reveal
            | Response::Log(_)
            | Response::Grounds(_)
            | Response::View(_)
            | Response::Witness(..)
            | Response::Checkpoint(_)
            | Response::Conflict(_)
            | Response::Refused(Refusal::Unknown(_) | Refusal::Invalid(_) | Refusal::NotAllowed(_)) => {
                self.wishes[number].answer = Some(response.clone());
            }
        }
    }
}
