//! The specification's example, its rules one by one, and one vote for each operator.

use protocol::{Timestamp, testing::signing_key};

use super::*;
use crate::{
    log::note::Line,
    testing::log::{Memory, ORIGIN, log_key, witness_key},
};

/// Gives a checkpoint that these witnesses cosigned.
fn seen_by(witnesses: &[u8]) -> Signed {
    let checkpoint = Memory::sized(3).checkpoint(3);
    let text = checkpoint.as_signed().note().text().to_owned();
    let at = Timestamp::from_millis(1_700_000_000_000);
    let lines = witnesses.iter().map(|seed| Line::cosign(witness_key(*seed).name(), &signing_key(*seed), &text, at));
    let note = checkpoint.as_signed().note().with(lines).unwrap();
    Signed::read(note.to_string().as_bytes()).unwrap()
}

/// Reads a policy in which `W1` stands for the line of a witness, and the log for `LOG`.
fn read(text: &str) -> Result<Policy, PolicyError> {
    let mut text = text.replace("LOG", &format!("log {}", log_key(ORIGIN)));
    for seed in (1..=9).rev() {
        text = text.replace(&format!("W{seed}"), &format!("witness w{seed} {}", witness_key(seed)));
    }
    Policy::read(text.as_bytes())
}

fn accepts(policy: &Policy, witnesses: &[u8]) -> bool {
    policy.check(seen_by(witnesses)).is_ok()
}

/// Two levels of groups, as in the document.
const EXAMPLE: &str = "\
LOG https://log.example/
W1
W2
W3
group X-witnesses 2 w1 w2 w3

 # The other organisation.
\tW4 https://witness.example/\t
W5
W6
group Y-witnesses any w4 w5 w6
group X-and-Y all X-witnesses Y-witnesses
quorum X-and-Y
";

#[test]
fn the_published_example() {
    let policy = read(EXAMPLE).unwrap();
    for (witnesses, expected) in [
        (&[1, 2, 4][..], true),
        (&[1, 3, 6], true),
        (&[6, 5, 4, 3, 2, 1], true),
        (&[1, 2], false),
        (&[1, 4, 5, 6], false),
        (&[1, 4, 7, 8], false),
        (&[1, 1, 4], false),
        (&[], false),
    ] {
        assert_eq!(accepts(&policy, witnesses), expected, "{witnesses:?}");
    }
    let witnessed = policy.check(seen_by(&[9, 4, 2, 1])).unwrap();
    let seen: Vec<_> = witnessed.seen.iter().map(|seen| seen.witness.clone()).collect();
    assert_eq!(seen, [witness_key(1), witness_key(2), witness_key(4)]);
    assert_eq!(policy.check(seen_by(&[1, 4])), Err(PolicyError::Quorum { seen: 2 }));
}

#[test]
fn quorums_of_one_and_of_none() {
    assert!(accepts(&read("LOG\nquorum none").unwrap(), &[]));
    let one = read("LOG\nW1\nW2\nquorum w2\n").unwrap();
    assert!(accepts(&one, &[2]) && !accepts(&one, &[1]));
    // Without a log there is nobody to believe.
    assert_eq!(
        read("quorum none").unwrap().check(seen_by(&[])),
        Err(PolicyError::Checkpoint(NoteError::Unsigned.into()))
    );
}

#[test]
fn a_false_cosignature_spoils_the_checkpoint() {
    let text = seen_by(&[1, 2]).to_string();
    let line = text.lines().last().unwrap();
    let false_one = format!("{}AAAA{}", &line[..line.len() - 20], &line[line.len() - 16..]);
    let changed = Signed::read(text.replace(line, &false_one).as_bytes()).unwrap();
    let policy = read("LOG\nW1\nW2\ngroup g any w1 w2\nquorum g").unwrap();
    let refused = policy.check(changed.clone()).unwrap_err();
    assert_eq!(refused, PolicyError::Checkpoint(NoteError::BadSignature(witness_key(2).name().clone()).into()));
    assert!(read("LOG\nW1\nquorum w1").unwrap().check(changed).is_ok(), "of an unknown witness nobody asks");
}

#[test]
fn one_operator_has_one_vote() {
    let name = |name: &str| OperatorName::new(name).unwrap();
    let operators = BTreeMap::from([
        (name("none"), vec![witness_key(1), witness_key(2), witness_key(3)]),
        (name("ops"), vec![witness_key(4)]),
        (name("any"), vec![witness_key(5), witness_key(6)]),
    ]);
    let policy = Policy::of_operators(&[log_key(ORIGIN)], &operators, 2).unwrap();
    assert!(!accepts(&policy, &[1, 2, 3]));
    assert!(!accepts(&policy, &[5, 6]));
    assert!(accepts(&policy, &[3, 6]) && accepts(&policy, &[4, 1]));
    let refused = |operators: &BTreeMap<_, _>, agree| Policy::of_operators(&[], operators, agree).unwrap_err();
    for agree in [0, 4] {
        let PolicyError::Line { why, .. } = refused(&operators, agree) else { panic!("{agree} of three") };
        assert_eq!(why, LineError::Threshold { members: 3 });
    }
    let twice = BTreeMap::from([(name("a"), vec![witness_key(1)]), (name("b"), vec![witness_key(1)])]);
    let PolicyError::Line { why: LineError::DuplicateKey, .. } = refused(&twice, 1) else {
        panic!("one key, two votes")
    };
    for nobody in [BTreeMap::new(), BTreeMap::from([(name("a"), vec![])])] {
        let PolicyError::Line { why: LineError::Form, .. } = refused(&nobody, 1) else {
            panic!("nobody sees anything")
        };
    }
}

#[test]
fn each_rule() {
    let refused = |text: &str| match read(text).unwrap_err() {
        PolicyError::Line { line, why } => (line, why),
        other @ (PolicyError::TooLarge { .. }
        | PolicyError::NoQuorum
        | PolicyError::Checkpoint(_)
        | PolicyError::Quorum { .. }) => panic!("{text:?}: {other}"),
    };
    let name = |text: &str| Name(text.as_bytes().into());
    assert_eq!(refused("quorum none\r"), (1, LineError::Character));
    assert_eq!(refused("\n#\x0b\n"), (2, LineError::Character));
    for form in
        ["log", "logs x", "witness a", "group a", "group a any", "quorum", "quorum a b", "LOG u v", "W1 u v", "x"]
    {
        assert_eq!(refused(form), (1, LineError::Form), "{form}");
    }
    assert!(matches!(refused("log example.com/foo+530d903a+AA=="), (1, LineError::Key(_))));
    assert_eq!(refused(&format!("log {}", witness_key(1))), (1, LineError::Algorithm));
    assert_eq!(refused(&format!("witness a {}", log_key(ORIGIN))), (1, LineError::Algorithm));
    assert_eq!(refused("LOG\nLOG"), (2, LineError::DuplicateKey));
    assert_eq!(refused(&format!("LOG\nlog {}", log_key("other.name"))), (2, LineError::DuplicateKey));
    assert_eq!(refused(&format!("W1\nwitness w2 {}", witness_key(1))), (2, LineError::DuplicateKey));
    assert_eq!(refused(&format!("W1\nwitness w1 {}", witness_key(2))), (2, LineError::Taken(name("w1"))));
    assert_eq!(refused(&format!("witness none {}", witness_key(2))), (1, LineError::Taken(name("none"))));
    assert_eq!(refused("W1\ngroup w1 any w1"), (2, LineError::Taken(name("w1"))));
    assert_eq!(refused("W1\ngroup g any w1 w2\nW2"), (2, LineError::Unknown(name("w2"))));
    assert_eq!(refused("W1\ngroup g any g"), (2, LineError::Unknown(name("g"))));
    assert_eq!(refused("W1\ngroup g any none"), (2, LineError::Unknown(name("none"))));
    assert_eq!(refused("W1\ngroup g 1 w1 w1"), (2, LineError::SecondGroup(name("w1"))));
    assert_eq!(refused("W1\ngroup g any w1\ngroup h any w1"), (3, LineError::SecondGroup(name("w1"))));
    for k in ["0", "3", "-1", "+1", "one", "99999999999999999999"] {
        assert_eq!(refused(&format!("W1\nW2\ngroup g {k} w1 w2")), (3, LineError::Threshold { members: 2 }), "{k}");
    }
    assert_eq!(refused("quorum w1\nW1"), (1, LineError::Unknown(name("w1"))));
    assert_eq!(refused("quorum none\nquorum none"), (2, LineError::SecondQuorum));
    assert_eq!(refused(&"W1\n".repeat(2)), (2, LineError::DuplicateKey));
    assert_eq!(read("# nothing\n"), Err(PolicyError::NoQuorum));
    assert_eq!(Policy::read(&vec![b'#'; POLICY_MAX + 1]), Err(PolicyError::TooLarge { got: POLICY_MAX + 1 }));
    let odd = [b"# \xe2\x84\xaa \xff\nwitness \xff ", witness_key(1).to_string().as_bytes(), b"\nquorum \xff"].concat();
    assert!(Policy::read(&odd).is_ok(), "names are bytes");
}

#[test]
fn there_is_an_end_of_groups() {
    let groups = |count: usize| -> String {
        let chain = (1..count).map(|at| format!("group g{at} any g{}\n", at - 1));
        format!("W1\ngroup g0 any w1\n{}quorum g{}\n", chain.collect::<String>(), count - 1)
    };
    assert!(accepts(&read(&format!("LOG\n{}", groups(40))).unwrap(), &[1]));
    assert!(read(&groups(LINES_MAX - 1)).is_ok());
    let PolicyError::Line { why, .. } = read(&groups(LINES_MAX)).unwrap_err() else { panic!("too many") };
    assert_eq!(why, LineError::TooMany);
}
