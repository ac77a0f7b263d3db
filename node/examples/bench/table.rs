//! The table: figures with what they are to be held against. It measures nothing.

use std::fmt;

use serde::Serialize;

/// Whether a target was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Met {
    /// Reached.
    Yes,
    /// Missed.
    No,
    /// The figure has no target.
    Free,
}

/// One figure.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    figure: String,
    value: f64,
    unit: &'static str,
    target: Option<String>,
    peer: Option<String>,
    /// The figure divided by the peer.
    ratio: Option<f64>,
    met: Met,
}

impl Row {
    /// A figure without a target.
    pub(crate) fn new(figure: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { figure: figure.into(), value, unit, target: None, peer: None, ratio: None, met: Met::Free }
    }

    /// Sets what the figure may be at most.
    pub(crate) fn at_most(mut self, target: f64) -> Self {
        self.target = Some(format!("<= {} {}", number(target), self.unit));
        self.met = if self.value <= target { Met::Yes } else { Met::No };
        self
    }

    /// Sets the peer or physical limit, in the figure's unit.
    pub(crate) fn beside(mut self, peer: &str, value: f64) -> Self {
        self.peer = Some(format!("{peer}: {} {}", number(value), self.unit));
        self.ratio = (value > 0.0).then(|| self.value / value);
        self
    }

    /// Sets which part of its peer the figure must reach at least. To be called after [`Row::beside`].
    pub(crate) fn at_least_of_peer(mut self, factor: f64) -> Self {
        self.target = Some(format!(">= {factor}x peer"));
        self.met = if self.ratio.is_some_and(|ratio| ratio >= factor) { Met::Yes } else { Met::No };
        self
    }

    /// Sets which part of its peer the figure may be at most. To be called after [`Row::beside`].
    pub(crate) fn at_most_of_peer(mut self, factor: f64) -> Self {
        self.target = Some(format!("<= {factor}x peer"));
        self.met = if self.ratio.is_some_and(|ratio| ratio <= factor) { Met::Yes } else { Met::No };
        self
    }
}

/// All figures, in order of measurement.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Table {
    profile: &'static str,
    rows: Vec<Row>,
}

impl Table {
    /// Adds a row, and says it at once: a later part may fail.
    pub(crate) fn add(&mut self, row: Row) {
        self.profile = if cfg!(debug_assertions) { "dev" } else { "release" };
        eprintln!("   {}: {} {}", row.figure, number(row.value), row.unit);
        self.rows.push(row);
    }

    /// Gives everything as one JSON object.
    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("numbers and text can always be written")
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::UTF8_BORDERS_ONLY);
        table.set_header(["figure", "value", "unit", "target", "peer or limit, same run", "ratio", "met"]);
        for row in &self.rows {
            let met = match row.met {
                Met::Yes => "yes",
                Met::No => "NO",
                Met::Free => "",
            };
            table.add_row([
                row.figure.clone(),
                number(row.value),
                row.unit.to_owned(),
                row.target.clone().unwrap_or_default(),
                row.peer.clone().unwrap_or_default(),
                row.ratio.map(|ratio| format!("{ratio:.2}x")).unwrap_or_default(),
                met.to_owned(),
            ]);
        }
        write!(f, "{table}\nprofile: {}", self.profile)
    }
}

/// Writes a number with as many digits as it deserves.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Gives a percentile of measurements that need not be sorted; 0 of none.
pub(crate) fn percentile(measured: &[f64], percent: usize) -> f64 {
    let mut sorted = measured.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(at).copied().unwrap_or(0.0)
}
