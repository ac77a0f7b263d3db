//! Compiles the last step into a sandbox, a static program that [`artel`](../artel/index.html) carries within itself: nothing of an
//! environment may be linked into what gives up rights.

use std::{env, path::PathBuf, process::ExitCode};

const SOURCE: &str = "src/build/sandbox/enter.c";

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed={SOURCE}");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("enter");
    let mut command = cc::Build::new().opt_level_str("s").get_compiler().to_command();
    command.args(["-static", "-s", "-Wall", "-Wextra", "-o"]).arg(&out).arg(SOURCE);
    match command.status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) | Err(_) => {
            println!("cargo::error=cannot compile {SOURCE}: install gcc and libc6-dev (with its static libc.a)");
            ExitCode::FAILURE
        }
    }
}
