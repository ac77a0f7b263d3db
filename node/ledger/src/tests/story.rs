//! The whole life of one job as the effects that its commands have, for people to read.

use attest::log::entry::Entry;

use crate::{
    Command, Effect,
    testing::{Bench, builder},
};

/// Writes what a command caused, one effect a line; ids are left out.
fn tell(story: &mut String, what: &str, bench: &Bench) {
    story.push_str(&format!("{what}\n"));
    for effect in &bench.effects {
        let line = match effect {
            Effect::Answer(response) => format!("answer {}", first_word(&format!("{response:?}"))),
            Effect::Grant(lease) => format!("grant lease {} profile {}", lease.number, lease.profile.0),
            Effect::Revoke { lease, reason, .. } => format!("revoke lease {lease}: {reason}"),
            Effect::Reveal { lease, .. } => format!("ask for the result of lease {lease}"),
            Effect::Disclose { .. } => "open the outputs to everybody".to_owned(),
            Effect::Announce(announcement) => format!("announce, {} excluded", announcement.excluded.len()),
            Effect::WakeAt(time) => format!("wake in {} s", time.since(bench.now).as_secs()),
            Effect::Publish(publication) => {
                format!("publish generation {} of {}", publication.generation, publication.channel)
            }
            Effect::Serve(service) => format!("serve {} as generation {}", service.work.word(), service.generation),
            Effect::Withdraw(w) => format!("withdraw from {} as generation {}", w.channel, w.generation),
            Effect::Resign { channel, generation } => format!("sign {channel} anew as generation {generation}"),
            Effect::Explain(dispute) => format!("explain {} beside {}", dispute.right.lease, dispute.left.lease),
            Effect::Append { index, entry } => {
                format!("log {index}: {}", Entry::from_bytes(entry).expect("an entry").event.word())
            }
            Effect::Notify(news) => format!("news {}", first_word(&format!("{news:?}"))),
        };
        story.push_str(&format!("    {line}\n"));
    }
}

fn first_word(text: &str) -> &str {
    text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default()
}

#[test]
#[expect(clippy::too_many_lines, reason = "a story is read in one piece")]
fn the_life_of_a_job_with_a_liar_and_a_lost_builder() {
    let (mut bench, mut story) = (Bench::of(4, 2, 2, 4), String::new());
    let job = bench.submit("deb", 1);
    tell(&mut story, "maria submits", &bench);
    let liar = bench.lease(builder(0, 0), job);
    tell(&mut story, "a bids", &bench);
    let lost = bench.lease(builder(1, 0), job);
    tell(&mut story, "b bids", &bench);
    bench.start(&lost);
    tell(&mut story, "b starts", &bench);
    bench.bid(builder(2, 0), job);
    tell(&mut story, "c bids", &bench);
    bench.commit(&liar, "lie");
    tell(&mut story, "a commits to a lie", &bench);
    bench.renew(&[&liar]);
    bench.wait(20);
    bench.renew(&[&liar]);
    bench.wait(5);
    tell(&mut story, "b is gone", &bench);
    let honest = bench.granted()[0].clone();
    bench.commit(&honest, "true");
    tell(&mut story, "c commits", &bench);
    bench.show(&liar, "lie");
    tell(&mut story, "a reveals a lie", &bench);
    bench.show(&honest, "true");
    tell(&mut story, "c reveals", &bench);
    let last = bench.lease(builder(3, 0), job);
    tell(&mut story, "d bids", &bench);
    bench.commit(&last, "true");
    tell(&mut story, "d commits", &bench);
    bench.show(&last, "true");
    tell(&mut story, "d reveals", &bench);
    bench.apply(Command::Published { job, generation: 1 });
    tell(&mut story, "the publisher is done", &bench);
    insta::assert_snapshot!(story, @"
    maria submits
        answer Receipt
        news Accepted
        announce, 0 excluded
        log 0: policy
        log 1: accepted
        wake in 30 s
    a bids
        answer Done
        news Granted
        grant lease 1 profile 0
        log 2: lease
        wake in 25 s
    b bids
        answer Done
        news Granted
        grant lease 2 profile 1
        log 3: lease
    b starts
        answer Done
        news Started
    c bids
        answer Done
    a commits to a lie
        news Committed
        answer Done
        log 4: commitment
    b is gone
        news LeaseExpired
        news Granted
        grant lease 3 profile 2
        log 5: outcome
        log 6: lease
        wake in 20 s
    c commits
        news Committed
        ask for the result of lease 1
        answer Reveal
        log 7: commitment
    a reveals a lie
        answer Done
        news Revealed
        log 8: outcome
    c reveals
        answer Done
        news Revealed
        announce, 2 excluded
        log 9: outcome
        wake in 10 s
    d bids
        answer Done
        news Granted
        grant lease 4 profile 3
        log 10: lease
    d commits
        news Committed
        answer Reveal
        log 11: commitment
    d reveals
        answer Done
        news Revealed
        open the outputs to everybody
        open the outputs to everybody
        open the outputs to everybody
        news Quarantined
        news Verdict
        news Dissent
        explain 3 beside 1
        publish generation 1 of stable
        log 12: outcome
        log 13: verdict
    the publisher is done
        news Published
    ");
    bench.assert_replays();
}
