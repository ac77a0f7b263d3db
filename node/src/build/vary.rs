//! Profiles: under which circumstances an attempt runs. Profile 0 is plain; each further one differs from all others.
//!
//! What is varied, and why each choice breaks no honest package:
//! * the date moves only forward, by over a year (`dpkg-deb` lowers times that are later than `SOURCE_DATE_EPOCH` and
//!   never raises earlier ones), and stays before 2038;
//! * time zones are POSIX strings, which need no zone files in the environment;
//! * the locale is compiled from the environment's own `locales` and always UTF-8, which can carry any file name; where
//!   the environment has none, `LC_ALL` stays `C.UTF-8` and only `LANG` and `LANGUAGE` name another;
//! * `umask` is 0022 or 0002, as on the machines of Debian's own reproducibility tests; so are `sh` (dash or bash) and the
//!   kernel's version (its own, or 2.6 by personality(2)).
//!
//! The CPU's model and the file system cannot be varied: they differ between nodes, and each attempt records its own.
//! This module starts nothing: it is a function from a number to words.

use std::collections::BTreeMap;

use protocol::lease::Profile;

use super::sandbox::within;

const DAY: u64 = 86_400;
/// The smallest shift of the date of a varied attempt: over a year, so that the year itself is another.
const DAYS_MIN: u64 = 398;
/// Shifts repeat after this many profiles, which keeps every date before 2038.
const SHIFTS: u64 = 64;
/// Locales with other collations, decimal signs and messages than English.
const LOCALES: [&str; 5] = ["et_EE", "fr_CH", "de_CH", "nl_BE", "it_CH"];
/// The shell commands that compile a locale into a folder that the sandbox made for it; the number of warnings is not ours.
const COMPILE: &str = "localedef --no-archive -c -i LOCALE -f UTF-8 /usr/lib/locale/LOCALE.UTF-8 >/dev/null 2>&1 || :\n\
     [ -e /usr/lib/locale/LOCALE.UTF-8/LC_CTYPE ] || { echo 'the locale LOCALE cannot be compiled'; exit 1; }\n\
     export LC_ALL=LOCALE.UTF-8\n";

/// What `configure` would find out about the system's clock and files on its own, were the date not moved: gnulib compares the
/// time of a file that it touches, which stays real, with the clock, which is moved.
const SITE: &str = "printf '%s\\n' gl_cv_func_working_utimes=yes gl_cv_func_utimensat_works=yes > /build/home/config.site\n\
     export CONFIG_SITE=/build/home/config.site\n";

/// Where a Debian package or an RPM has what moves the date.
const LIBRARIES: &str = "/usr/lib/*/faketime/libfaketime.so.1 /usr/lib64/faketime/libfaketime.so.1";

/// The circumstances of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variation {
    /// The profile's number.
    pub profile: u16,
    /// The host's name inside.
    pub hostname: String,
    /// The name of the host's domain, for DNS and NIS.
    pub domain: String,
    /// The build user's name.
    pub user: String,
    /// The build user's number, in the namespace.
    pub uid: u32,
    /// The folder below which the build runs.
    pub place: String,
    /// The file mode mask, as four octal digits.
    pub umask: &'static str,
    /// CPUs that the build sees.
    pub cpus: u32,
    /// Niceness.
    pub nice: u8,
    /// Seconds by which the date is moved forward; 0 leaves the clock alone.
    pub shift_secs: u64,
    /// What the build sees of the system beneath.
    pub system: System,
    /// Environment variables.
    pub variables: Vec<(String, String)>,
}

/// What a build sees of the system beneath.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct System {
    /// The kernel's version.
    pub kernel: Kernel,
    /// What `/bin/sh` is.
    pub sh: Sh,
    /// The locale of everything, for instance `et_EE`, if the environment can have it; otherwise `C.UTF-8`.
    pub locale: Option<&'static str>,
    /// The build user's login shell.
    pub login_shell: &'static str,
    /// The build user's name in full.
    pub gecos: String,
}

/// Which version the kernel tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// Its own.
    Own,
    /// One that begins with 2.6: `UNAME26` of personality(2).
    Old,
}

/// What `/bin/sh` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sh {
    /// What the environment has: dash, in Debian.
    Own,
    /// Bash.
    Bash,
}

impl Variation {
    /// Names the profile for people: what is varied beside the names, numbers, zones and dates that every profile varies.
    pub fn name(&self) -> &'static str {
        match (self.profile, self.system.kernel) {
            (0, _) => "plain",
            (_, Kernel::Old) => "far: kernel 2.6, sh is bash, umask 0002",
            (_, Kernel::Own) => "near: the kernel and sh as they are, umask 0022",
        }
    }

    /// Gives what the profile makes of the circumstances, as keys and values.
    pub fn table(&self) -> BTreeMap<String, String> {
        let system = &self.system;
        let words = [
            ("build_path", self.place.clone()),
            ("cpu_count", self.cpus.to_string()),
            ("date", format!("{} days ahead", self.shift_secs / DAY)),
            ("domain", self.domain.clone()),
            ("gecos", system.gecos.clone()),
            ("hostname", self.hostname.clone()),
            ("kernel", if system.kernel == Kernel::Old { "2.6" } else { "its own" }.to_owned()),
            ("login_shell", system.login_shell.to_owned()),
            ("nice", self.nice.to_string()),
            ("profile", self.profile.to_string()),
            ("profile_name", self.name().to_owned()),
            ("sh", if system.sh == Sh::Bash { "bash" } else { "the environment's" }.to_owned()),
            ("uid", self.uid.to_string()),
            ("umask", self.umask.to_owned()),
        ];
        let locale = system.locale.map(|locale| ("LC_ALL".to_owned(), format!("{locale}.UTF-8")));
        let words = words.into_iter().map(|(key, value)| (key.to_owned(), value));
        words.chain(self.variables.iter().cloned()).chain(locale).collect()
    }

    /// Gives a variable's value.
    pub fn variable(&self, key: &str) -> Option<&str> {
        self.variables.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    /// Fits the profile to an environment: without the sources of its locale, that stays `C.UTF-8`.
    pub(in crate::build) fn fit(mut self, environment: &std::path::Path) -> Self {
        let has = |locale: &&str| within::is_file(environment, &format!("usr/share/i18n/locales/{locale}"));
        self.system.locale = self.system.locale.filter(has);
        self
    }

    /// Fits the profile to the installation of a system: its C library refuses a kernel of version 2.6, and it has neither
    /// another `sh` nor another locale while its packages come.
    pub(in crate::build) fn installing(mut self) -> Self {
        self.umask = "0022";
        self.system = System { kernel: Kernel::Own, sh: Sh::Own, locale: None, ..self.system };
        self
    }

    /// Fits the profile to a machine's own programs, which nothing is added to: no other `sh`, locale or date.
    pub(in crate::build) fn light(self) -> Self {
        Self { shift_secs: 0, ..self.installing() }
    }

    /// Gives the lines of shell that come before what is built: they compile the locale and move the date for what follows.
    /// Empty for the plain profile.
    ///
    /// Times of files stay real (`NO_FAKE_STAT`): they would otherwise be moved too and no longer be the source's own.
    /// The monotonic clock stays real, or waiting would not end.
    pub(in crate::build) fn preload(&self) -> String {
        let compile = self.system.locale.map_or_else(String::new, |locale| COMPILE.replace("LOCALE", locale));
        if self.shift_secs == 0 {
            return compile;
        }
        format!(
            "{compile}{SITE}for library in {LIBRARIES}; do [ ! -e \"$library\" ] || break; done\n\
             [ -e \"$library\" ] || {{ echo 'the environment has no libfaketime: lock it again'; exit 1; }}\n\
             export NO_FAKE_STAT=1 FAKETIME_DONT_FAKE_MONOTONIC=1 FAKETIME=+{} LD_PRELOAD=\"$library\"\n",
            self.shift_secs
        )
    }
}

/// Gives the circumstances of a profile on a node that gives the attempt at most `cpus` CPUs.
pub fn variation(profile: Profile, cpus: u32) -> Variation {
    let cpus = cpus.max(1);
    match profile.0 {
        0 => plain(cpus),
        n => varied(n, cpus),
    }
}

fn plain(cpus: u32) -> Variation {
    Variation {
        profile: 0,
        hostname: "artel".into(),
        domain: "artel.invalid".into(),
        user: "builder".into(),
        uid: 1000,
        place: "/build/reproducible-path".into(),
        umask: "0022",
        cpus,
        nice: 0,
        shift_secs: 0,
        system: System {
            kernel: Kernel::Own,
            sh: Sh::Own,
            locale: None,
            login_shell: "/bin/sh",
            gecos: "artel".into(),
        },
        variables: words(&[
            ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
            ("TZ", "UTC"),
            ("LC_ALL", "C.UTF-8"),
            ("LANG", "C.UTF-8"),
            ("TERM", "dumb"),
            ("SHELL", "/bin/sh"),
            ("USER", "builder"),
            ("LOGNAME", "builder"),
        ]),
    }
}

fn varied(n: u16, cpus: u32) -> Variation {
    let number = u32::from(n);
    let locale = LOCALES[usize::from(n - 1) % LOCALES.len()];
    let (lang, language) = (format!("{locale}.UTF-8"), format!("{locale}:{}", &locale[..2]));
    let (user, odd) = (format!("varied{n}"), n % 2 == 1);
    let path = format!("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/nonexistent/path-{n}");
    Variation {
        profile: n,
        hostname: format!("varied-host-{n}"),
        domain: format!("domain-{n}.invalid"),
        user: user.clone(),
        uid: 1000 + 1 + number % 50_000,
        place: format!("/build/{}-{n}", "another-path".repeat(usize::from(n % 4) + 1)),
        umask: if odd { "0002" } else { "0022" },
        cpus: fewer(number, cpus),
        nice: u8::try_from(n % 10).unwrap_or(0),
        shift_secs: (DAYS_MIN + (u64::from(n) - 1) % SHIFTS * 37) * DAY + u64::from(n % 24) * 3671,
        system: System {
            kernel: if odd { Kernel::Old } else { Kernel::Own },
            sh: if odd { Sh::Bash } else { Sh::Own },
            locale: Some(locale),
            login_shell: "/bin/bash",
            gecos: format!("varied builder {n}"),
        },
        variables: words(&[
            ("PATH", &path),
            ("TZ", &zone(number)),
            ("LC_ALL", "C.UTF-8"),
            ("LANG", &lang),
            ("LANGUAGE", &language),
            ("TERM", if odd { "linux" } else { "xterm-256color" }),
            ("COLUMNS", &(81 + number % 200).to_string()),
            ("LINES", &(25 + number % 100).to_string()),
            ("SHELL", "/bin/bash"),
            ("USER", &user),
            ("LOGNAME", &user),
            ("USERNAME", &user),
            ("CAPTURE_ENVIRONMENT", "I capture the environment"),
        ]),
    }
}

/// Gives fewer CPUs than there are, another count for each profile where there is a choice.
fn fewer(n: u32, cpus: u32) -> u32 {
    if cpus < 2 { 1 } else { cpus - 1 - (n - 1) % (cpus - 1) }
}

/// Gives a zone of whole and half hours between UTC-11:30 and UTC+13:30, never UTC itself.
fn zone(n: u32) -> String {
    let half_hours = i64::from(n) * 11 % 51 - 23;
    let half_hours = if half_hours == 0 { 27 } else { half_hours };
    // POSIX counts westward: the sign is the opposite of what people write.
    let sign = if half_hours > 0 { '-' } else { '+' };
    format!("ART{sign}{}:{:02}", half_hours.abs() / 2, half_hours.abs() % 2 * 30)
}

fn words(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn plain_leaves_the_clock_alone() {
        let plain = variation(Profile(0), 8);
        assert_eq!((plain.shift_secs, plain.cpus, plain.umask), (0, 8, "0022"));
    }

    #[test]
    fn any_two_profiles_differ_in_what_matters() {
        let all: Vec<_> = (0..25).map(|n| variation(Profile(n), 4)).collect();
        let distinct = |what: fn(&Variation) -> String| all.iter().map(what).collect::<BTreeSet<_>>().len();
        assert_eq!(distinct(|v| v.hostname.clone()), 25);
        assert_eq!(distinct(|v| v.user.clone()), 25);
        assert_eq!(distinct(|v| v.uid.to_string()), 25);
        assert_eq!(distinct(|v| v.place.clone()), 25);
        assert_eq!(distinct(|v| (v.shift_secs / DAY).to_string()), 25);
        assert!(distinct(|v| format!("{:?}", v.variables.iter().find(|(key, _)| key == "TZ"))) >= 24);
    }

    #[test]
    fn every_varied_date_is_over_a_year_ahead_and_before_2038() {
        for n in 1..=u16::MAX {
            let days = variation(Profile(n), 2).shift_secs / DAY;
            assert!((366..3650).contains(&days), "profile {n}: {days} days");
        }
    }

    #[test]
    fn every_profile_fits_the_mapped_range_and_a_path() {
        for n in [1, 2, 3, 4, 1000, u16::MAX] {
            let v = variation(Profile(n), 2);
            assert!(v.uid < 65_000 && v.place.len() < 80 && v.hostname.len() < 64 && v.cpus == 1, "{v:?}");
        }
    }
}
