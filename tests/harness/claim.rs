//! What a member can sign without having built it: the statement that a lease asks for, with a content of its own choice.
//!
//! It is complete and well-formed, so that what a test changes in it is all that is wrong with it.

use std::collections::BTreeMap;

use artel::{clock, net::Net};
use attest::{
    compare::Output,
    statement::{Attestation, Material, Run, Task},
};
use protocol::{
    Arch, Hash, JobId, NetworkId, NodeId, Sha256, Signed, Verified,
    job::{JobKind, JobRequest, job_id},
    lease::Lease,
    message::{Octets, Request, Response},
    words::RelativePath,
};

/// Asks the coordinator for a job's request.
///
/// # Panics
/// When it has none.
pub async fn request_of(net: &Net, (network, coordinator): (NetworkId, NodeId), job: JobId) -> Verified<JobRequest> {
    let answer = net.ask(coordinator, Request::Job(job)).await.unwrap();
    let Response::Record(Octets(request)) = answer else { panic!("no request: {answer:?}") };
    Signed::read(&request).and_then(|signed| signed.verify(Some(&network))).unwrap()
}

/// Claims that a node made one file of this content under its lease.
///
/// # Panics
/// When the job has no outputs with names that are known before.
pub fn claim(request: &Verified<JobRequest>, (lease, node): (&Lease, NodeId), content: &[u8]) -> Attestation {
    let output = Output {
        hash: Hash::of(content),
        name: first_output(request.get()),
        size: content.len() as u64,
        sha256: Sha256::of(content),
    };
    let now = clock::now();
    let run = Run {
        node,
        lease: lease.number,
        profile: lease.profile,
        started: now,
        finished: now,
        version: "0.1.0".to_owned(),
        node_info: BTreeMap::new(),
    };
    Attestation {
        task: Task::of(job_id(request), request.get()),
        run,
        outputs: vec![output],
        byproducts: Vec::new(),
        materials: Material::of(request.get()),
    }
}

fn first_output(request: &JobRequest) -> RelativePath {
    match &request.kind {
        JobKind::Command(command) => command.outputs[0].clone(),
        JobKind::Deb(deb) => {
            let arch = Arch::native().unwrap();
            format!("{}_{}_{arch}.deb", deb.source, deb.version).parse().unwrap()
        }
        JobKind::Rpm(_) | JobKind::Image(_) | JobKind::Fetch(_) | JobKind::Server(_) => {
            panic!("its outputs are named by whoever builds it")
        }
    }
}
