//! Which changes of state are legal.

use super::*;

fn agreement() -> Agreement {
    Agreement { digest: protocol::Hash::of(b"a"), dissent: Vec::new(), builders: Vec::new(), operators: Vec::new() }
}

fn ended(outcome: Outcome) -> JobState {
    JobState::Ended(Ended { at: Timestamp::ZERO, outcome })
}

#[test]
fn only_the_steps_of_the_picture_are_legal() {
    let publishing = JobState::Publishing(Publishing { step: PublishStep::Waiting, agreement: agreement() });
    let published = ended(Outcome::Published { agreement: agreement(), generation: 1 });
    let comparison = Comparison { files: Vec::new(), groups: Vec::new() };
    let states = [
        JobState::Queued,
        JobState::Building,
        publishing,
        published,
        ended(Outcome::Unpublished { why: "full".into(), agreement: agreement() }),
        ended(Outcome::Reproduced(agreement())),
        ended(Outcome::Disputed(comparison.clone())),
        ended(Outcome::Unreproducible(comparison)),
        ended(Outcome::Failed(JobFailure::Poison { lost: 5 })),
        ended(Outcome::Cancelled { reason: "typo".into() }),
        ended(Outcome::Expired),
        JobState::Serving(PublishStep::Running { tries: 0, generation: 1, left: Left::Nothing }),
        ended(Outcome::Skipped { of: JobId::from_bytes([1; 32]), why: "failed".into() }),
        ended(Outcome::Served { generation: 1 }),
        ended(Outcome::Unserved { why: "full".into() }),
    ];
    let table = [
        (
            "queued",
            "queued building reproduced disputed unreproducible failed cancelled expired running skipped failed-to-run",
        ),
        ("building", "queued building publishing reproduced disputed unreproducible failed cancelled expired"),
        ("publishing", "publishing published failed-to-publish cancelled"),
        ("running", "cancelled running done failed-to-run"),
    ];
    for from in &states {
        let legal = |to: &&JobState| {
            let mut state = from.clone();
            let result = state.become_state((*to).clone());
            let expected = if result.is_ok() { *to } else { from };
            assert_eq!(&state, expected, "an illegal step leaves the state");
            result.is_ok()
        };
        let words: Vec<_> = states.iter().filter(legal).map(JobState::word).collect();
        let expect = table.iter().find(|(word, _)| *word == from.word()).map_or("", |(_, words)| words);
        assert_eq!(words.join(" "), expect, "from {}", from.word());
    }
    let illegal = states[3].clone().become_state(JobState::Queued).unwrap_err();
    assert_eq!(illegal.to_string(), "a job that is published cannot become queued");
}
