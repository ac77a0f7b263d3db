//! One request for several jobs: architectures and variants, each with each.

use protocol::{Arch, FileName};
use web::api::JobSummary;

use crate::{cli::exit, submit::variants::Variant};

/// Jobs that one request may become.
const JOBS_MAX: usize = 64;

/// Several jobs at once
#[derive(Debug, clap::Args)]
pub(super) struct Many {
    /// The architectures to build on, each with each variant: a job of its own, in one group [default: this machine's]
    #[arg(long, value_delimiter = ',', value_name = "ARCH")]
    arch: Vec<Arch>,
    /// A variant, by name: one of the recipe's, or for a source package NAME=WORD+.. with words option:WORD and profile:WORD;
    /// may be repeated
    #[arg(long = "variant", value_name = "NAME[=WORD+..]")]
    variants: Vec<Variant>,
}

impl Many {
    /// Says whether it is a group of jobs.
    pub(super) fn is_several(&self) -> bool {
        self.arch.len() > 1 || !self.variants.is_empty()
    }

    /// Gives every architecture with every variant, each once.
    pub(super) fn all(&self) -> anyhow::Result<Vec<(Arch, Option<Variant>)>> {
        let usage = |what: String| Err(exit::failure(exit::USAGE, what).into());
        let mut arches = self.arch.clone();
        if arches.is_empty() {
            let Some(native) = Arch::native() else {
                return usage("this machine's architecture has no name in dpkg: give --arch".to_owned());
            };
            arches.push(native);
        }
        for (at, arch) in arches.iter().enumerate() {
            if *arch == Arch::All || arches[..at].contains(arch) {
                return usage(format!("--arch {arch} is no architecture to build on, or stands there twice"));
            }
        }
        for (at, variant) in self.variants.iter().enumerate() {
            if self.variants[..at].iter().any(|other| other.name == variant.name) {
                return usage(format!("the variant {} stands there twice", variant.name));
            }
        }
        let none = [None];
        let some: Vec<Option<Variant>> = self.variants.iter().cloned().map(Some).collect();
        let variants = if some.is_empty() { &none[..] } else { &some[..] };
        if arches.len() * variants.len() > JOBS_MAX {
            return usage(format!("these are more than {JOBS_MAX} jobs"));
        }
        let each = |arch: &Arch| variants.iter().map(|variant| (*arch, variant.clone())).collect::<Vec<_>>();
        Ok(arches.iter().flat_map(each).collect())
    }

    /// Names one job of the group; none when there is no group.
    pub(super) fn name(&self, arch: Arch, variant: Option<&Variant>) -> anyhow::Result<Option<FileName>> {
        let name = match (self.is_several(), variant) {
            (false, _) => return Ok(None),
            (true, Some(variant)) => format!("{arch}-{}", variant.name),
            (true, None) => arch.to_string(),
        };
        Ok(Some(FileName::new(name)?))
    }
}

/// Checks that what is built has such variants.
pub(super) fn fits(what: &str, is_recipe: bool, variant: Option<&Variant>) -> anyhow::Result<()> {
    let Some(variant) = variant else { return Ok(()) };
    let other = [".toml", ".iso", ".spec", ".src.rpm"].iter().any(|ending| what.ends_with(ending));
    let wrong = match (is_recipe, variant.is_for_debs()) {
        (true, true) => "the variants of a recipe stand in the recipe: give only the name",
        (false, _) if other => "it has no variants: recipes of images and Debian source packages have",
        (false, false) => "a variant of a source package has words: NAME=profile:nodoc+option:nocheck",
        (true, false) | (false, true) => return Ok(()),
    };
    Err(exit::failure(exit::USAGE, format!("{}: {wrong}", variant.name)).into())
}

/// Gives a job's line, with its variant where it has one.
pub(super) fn title(job: &JobSummary) -> String {
    match &job.group {
        Some(group) => format!("{} [{} of {}]", job.title, group.variant, group.id.short()),
        None => job.title.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn many(arch: &[Arch], variants: &[&str]) -> Many {
        Many { arch: arch.to_vec(), variants: variants.iter().map(|text| text.parse().unwrap()).collect() }
    }

    #[test]
    fn each_architecture_is_built_in_each_variant() {
        let several = many(&[Arch::Amd64, Arch::Arm64], &["full", "nodoc=profile:nodoc"]);
        let all = several.all().unwrap();
        let names: Vec<String> =
            all.iter().map(|(arch, v)| several.name(*arch, v.as_ref()).unwrap().unwrap().to_string()).collect();
        assert_eq!(names, ["amd64-full", "amd64-nodoc", "arm64-full", "arm64-nodoc"]);
        let one = many(&[], &[]);
        let [(arch, None)] = &one.all().unwrap()[..] else { panic!("one job") };
        assert!(one.name(*arch, None).unwrap().is_none(), "one job is no group");
        for wrong in [many(&[Arch::Amd64, Arch::Amd64], &[]), many(&[Arch::All], &[]), many(&[], &["a", "a"])] {
            assert!(wrong.all().is_err());
        }
    }

    #[test]
    fn variants_must_be_of_what_is_built() {
        let check = |what: &str, is_recipe, text: &str| fits(what, is_recipe, Some(&text.parse().unwrap())).is_ok();
        assert!(check("shop.toml", true, "kiosk") && check("hello", false, "x=profile:nodoc"));
        assert!(!check("shop.toml", true, "kiosk=profile:x") && !check("hello", false, "kiosk"));
        assert!(!check("a.spec", false, "x=option:y") && !check("a.toml", false, "x"));
    }
}
