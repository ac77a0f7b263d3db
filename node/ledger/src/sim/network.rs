//! The simulated network: what is lost, late or repeated, and which ways are cut.

use std::collections::BTreeSet;

use super::{Event, World};

/// Somebody with an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    Member(usize),
    Builder(usize),
    People,
    Mirror,
}

/// What a cut separates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// The leader from everybody, in both directions.
    Leader,
    /// A member from the other members, in both directions; others still reach it.
    Apart(usize),
    /// What the member says reaches nobody.
    Mute(usize),
    /// The member hears nobody.
    Deaf(usize),
    /// Two halves: even and odd members, builders with their half; people and the mirror with the even one.
    Halves,
    /// A builder from everybody, in both directions.
    Builder(usize),
}

/// The ways between places.
#[derive(Debug)]
pub(super) struct Network {
    /// Per cent of messages that are lost, and that arrive twice.
    loss: u64,
    cuts: BTreeSet<(Place, Place)>,
}

impl Network {
    /// A network that loses and repeats so many of a hundred messages while there are faults.
    pub(super) const fn new(loss: u64) -> Self {
        Self { loss, cuts: BTreeSet::new() }
    }

    /// Says whether what one says reaches the other.
    pub(super) fn reaches(&self, from: Place, to: Place) -> bool {
        from == to || !self.cuts.contains(&(from, to))
    }

    /// Says whether both hear each other.
    pub(super) fn talk(&self, one: Place, other: Place) -> bool {
        self.reaches(one, other) && self.reaches(other, one)
    }

    pub(super) fn heal(&mut self) {
        self.cuts.clear();
    }
}

impl World {
    /// Sends over the network: slowly, and while there are faults not at all or twice.
    pub(super) fn send(&mut self, from: Place, to: Place, event: Event) {
        if !self.network.reaches(from, to) {
            self.see("message into a cut");
            return;
        }
        let loss = if self.faulty() { self.network.loss } else { 0 };
        if self.random.percent(loss) {
            self.see("message lost");
            return;
        }
        if self.random.percent(loss) {
            self.see("message repeated");
            self.soon(1, 20_000, event.clone());
        }
        self.soon(1, 300, event);
    }

    fn places(&self) -> Vec<Place> {
        let members = (0..self.group.members.len()).map(Place::Member);
        let builders = (0..self.builders.len()).map(Place::Builder);
        members.chain(builders).chain([Place::People, Place::Mirror]).collect()
    }

    pub(super) fn cut(&mut self, cut: Cut) {
        if !self.faulty() {
            return;
        }
        let leader = self.group.newest_leader();
        let splits = |from: Place, to: Place| match cut {
            Cut::Leader => from == Place::Member(leader) || to == Place::Member(leader),
            Cut::Apart(one) => match (from, to) {
                (Place::Member(from), Place::Member(to)) => from == one || to == one,
                _ => false,
            },
            Cut::Mute(one) => from == Place::Member(one),
            Cut::Deaf(one) => to == Place::Member(one),
            Cut::Halves => half(from) != half(to),
            Cut::Builder(one) => from == Place::Builder(one) || to == Place::Builder(one),
        };
        let places = self.places();
        for from in &places {
            for to in places.iter().filter(|to| *to != from && splits(*from, **to)) {
                self.network.cuts.insert((*from, *to));
            }
        }
        self.see(match cut {
            Cut::Leader => "leader cut off",
            Cut::Apart(_) => "member cut off from members",
            Cut::Mute(_) => "member mute",
            Cut::Deaf(_) => "member deaf",
            Cut::Halves => "network in halves",
            Cut::Builder(_) => "builder cut off",
        });
        self.soon(3000, 60_000, Event::Heal);
    }
}

fn half(place: Place) -> usize {
    match place {
        Place::Member(at) | Place::Builder(at) => at % 2,
        Place::People | Place::Mirror => 0,
    }
}
