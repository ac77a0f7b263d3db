//! Repositories: from attested packages to a signed apt repository.
