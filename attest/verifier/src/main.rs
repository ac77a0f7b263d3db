//! `artel-verify`: checks packages, repositories and bundles, without any network or server.

fn main() -> std::process::ExitCode {
    verifier::program::main()
}
