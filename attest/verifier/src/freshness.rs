//! Where the log's newest checkpoint is to be had for packages of a source: what shows that nobody holds back what is newer.

/// Gives the addresses below which a source may have it, the likeliest first: a node serves its log beside its repositories
/// (`/log` and `/repo/NAME`); whoever serves a repository's folder by other means may put it in there.
pub fn checkpoints(source: &str) -> Vec<String> {
    let node = source.rsplit_once("/repo/").map(|(node, _)| format!("{node}/log/checkpoint"));
    node.into_iter().chain([format!("{}/log/checkpoint", source.trim_end_matches('/'))]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beside_a_nodes_repositories_and_within_a_folder() {
        let node = "http://x:4780/artel/repo/main/";
        assert_eq!(
            checkpoints(node),
            ["http://x:4780/artel/log/checkpoint", "http://x:4780/artel/repo/main/log/checkpoint"]
        );
        assert_eq!(checkpoints("file:/srv/main"), ["file:/srv/main/log/checkpoint"]);
    }
}
