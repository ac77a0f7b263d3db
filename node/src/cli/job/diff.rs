//! `artel job diff`: what is different in the outputs of attempts that disagree.

use std::path::PathBuf;

use anyhow::Context as _;
use web::{
    Backend,
    api::{DifferenceForm, ExplanationView, JobDetail},
};

use super::find;
use crate::cli::{
    Context, exit,
    output::{self, Format},
};

/// Which comparison, and where to
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Diff {
    /// The job's id, or that of one of its explanations, or its first digits
    job: String,
    /// Only the comparison with this attempt, by the number that `job show` prints
    #[arg(long)]
    attempt: Option<u64>,
    /// Write the comparison as HTML into this file; a stranger's build may have shaped it
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

impl Diff {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<u8> {
        let client = context.client();
        let detail = client.job(find(context, &self.job).await?).await?;
        let wanted = |known: &&ExplanationView| self.attempt.is_none_or(|number| known.right.0 == number);
        let known: Vec<&ExplanationView> = detail.explanations.iter().filter(wanted).collect();
        if known.is_empty() {
            let why = "no attempts of it differ, as far as is known";
            return Err(exit::failure(exit::FAILED, why).hint("`artel job show` names its attempts").into());
        }
        if let Some(file) = &self.html {
            let readable = known.iter().find(|known| known.html.is_some());
            let readable = readable.ok_or_else(|| exit::failure(exit::FAILED, known[0].summary.clone()))?;
            let bytes = client.difference(readable.id, DifferenceForm::Html).await?;
            std::fs::write(file, bytes).with_context(|| format!("{} cannot be written", file.display()))?;
            anstream::eprintln!("{} written", file.display());
            return Ok(exit::DONE);
        }
        if context.format == Format::Json {
            output::json(&known)?;
            return Ok(exit::DONE);
        }
        for one in &known {
            for line in lines(&detail, one) {
                output::line(&output::printable(&line))?;
            }
            if one.text.is_some() {
                let text = client.difference(one.id, DifferenceForm::Text).await?;
                output::line(&output::printable(String::from_utf8_lossy(&text).trim_end()))?;
            }
        }
        let told = known.iter().any(|one| one.text.is_some() || one.ended.is_none());
        Ok(if told { exit::DONE } else { exit::FAILED })
    }
}

/// Words one explanation.
pub(super) fn lines(detail: &JobDetail, one: &ExplanationView) -> Vec<String> {
    let mut lines =
        vec![format!("attempts {} and {}: {}", one.left, one.right, one.sides()), format!("    {}", one.summary)];
    let variations = detail.variations(one);
    if !variations.is_empty() {
        lines.push(format!("    varied between them: {}", variations.join(", ")));
    }
    for quote in &one.quotes {
        let shows = if quote.variation.is_empty() { "not recognised" } else { &quote.variation };
        lines.push(format!("    {shows}, in {}", quote.place));
        lines.push(format!("      -{}", quote.left));
        lines.push(format!("      +{}", quote.right));
    }
    lines
}
