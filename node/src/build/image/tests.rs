//! What is checked before anything runs. Whole images are made in `tests/it/image.rs`.

use std::process::Command;

use protocol::testing::samples;

use super::*;

/// A request for an image whose lock has these bytes, and a folder with them.
fn request(bytes: &[u8]) -> (JobRequest, tempfile::TempDir) {
    let mut request = samples::image_request(samples::network());
    let JobKind::Image(job) = &mut request.kind else { panic!("the sample is an image job") };
    (job.packages.size, job.packages.sha256) = (bytes.len() as u64, Sha256::of(bytes));
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(ImageJob::LOCK), bytes).unwrap();
    (request, folder)
}

#[test]
fn only_the_named_lock_is_used() {
    let lock = samples::lock();
    let (request, folder) = request(&lock.to_bytes());
    assert_eq!(packages(&request, folder.path()).unwrap(), Some(lock.clone()));
    let changed = EnvironmentLock { epoch: lock.epoch + 1, ..lock };
    fs::write(folder.path().join(ImageJob::LOCK), changed.to_bytes()).unwrap();
    let error = packages(&request, folder.path()).unwrap_err();
    assert!(matches!(&error, Error::Input(InputError::Tampered { .. })), "{error:?}");
    fs::write(folder.path().join(ImageJob::LOCK), [0; 3]).unwrap();
    let error = packages(&request, folder.path()).unwrap_err();
    assert_eq!(error.blame(), Blame::InputMismatch, "{error:?}");
}

#[test]
fn a_lock_that_is_none_is_the_jobs_fault() {
    let (garbage, folder) = request(b"no lock");
    assert_eq!(packages(&garbage, folder.path()).unwrap_err().blame(), Blame::Job);
    let other = EnvironmentLock { arch: Arch::Arm64, packages: Vec::new(), ..samples::lock() };
    let (foreign, folder) = request(&other.to_bytes());
    let error = packages(&foreign, folder.path()).unwrap_err();
    assert!(error.blame() == Blame::Job && error.to_string().contains("for arm64"), "{error}");
    let command = samples::command_request(samples::network());
    assert_eq!(packages(&command, folder.path()).unwrap(), None, "other kinds have no such lock");
}

#[test]
fn every_input_has_its_place_and_the_scripts_are_shell() {
    let (request, _folder) = request(b"");
    let JobKind::Image(job) = &request.kind else { panic!("the sample is an image job") };
    let names = format!("{:?}", wanted(job, &samples::lock()));
    for name in ["\"packages.lock\"", "\"files/etc/motd\"", "\"packages/base-files_12.4_amd64.deb\""] {
        assert!(names.contains(name), "{name} is not in {names}");
    }
    let script = script(&crate::build::vary::variation(protocol::lease::Profile(1), 2));
    assert!(Command::new("sh").args(["-n", "-c", &script]).status().unwrap().success());
    assert_eq!(arguments(&samples::lock()), ["--include=base-files=12.4,libfaketime=0.9.10-2.1"]);
}
