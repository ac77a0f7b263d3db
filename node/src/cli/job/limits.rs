//! What one attempt of a job may use, in the words of the command line.

use clap::Args;
use protocol::job::BuildLimits;

/// What they stand under in the help.
const HEADING: &str = "Limits of one attempt";

/// The limits of one attempt. The policy bounds the wall time.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct LimitWords {
    /// Memory, in MiB
    #[arg(long, help_heading = HEADING, value_name = "MIB", default_value_t = BuildLimits::default().memory_mib)]
    memory: u32,
    /// Disk for the build tree and the outputs, in MiB
    #[arg(long, help_heading = HEADING, value_name = "MIB", default_value_t = BuildLimits::default().disk_mib)]
    disk: u32,
    /// CPUs, in thousandths: 1500 are one and a half
    #[arg(long, help_heading = HEADING, value_name = "MILLI", default_value_t = BuildLimits::default().cpu_milli)]
    cpu: u32,
    /// Wall time, in seconds
    #[arg(long, help_heading = HEADING, value_name = "SECONDS", default_value_t = BuildLimits::default().wall_secs)]
    wall: u32,
    /// The longest time without output, in seconds
    #[arg(long, help_heading = HEADING, value_name = "SECONDS", default_value_t = BuildLimits::default().silence_secs)]
    silence: u32,
    /// The longest build log, in KiB
    #[arg(long, help_heading = HEADING, value_name = "KIB", default_value_t = BuildLimits::default().log_kib)]
    log_size: u32,
    /// Processes and threads at one time
    #[arg(long, help_heading = HEADING, value_name = "NUMBER", default_value_t = BuildLimits::default().pids)]
    processes: u32,
}

impl LimitWords {
    /// Gives the limits that were asked for.
    pub(in crate::cli) fn limits(&self) -> BuildLimits {
        BuildLimits {
            pids: self.processes,
            log_kib: self.log_size,
            disk_mib: self.disk,
            cpu_milli: self.cpu,
            wall_secs: self.wall,
            memory_mib: self.memory,
            silence_secs: self.silence,
        }
    }
}
