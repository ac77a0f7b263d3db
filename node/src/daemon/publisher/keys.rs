//! The OpenPGP keys of this node's repositories, read again at each look, and everybody's certificates for clients.
//!
//! `artel repo key` changes the files beside the running daemon, so nothing here remembers them.

use protocol::{
    Timestamp,
    message::{Octets, Request, Response},
};
use tracing::{debug, info, warn};

use super::{Publisher, Shared, chain};
use crate::{
    clock,
    publish::sign::{
        RepositoryKey,
        keyring::{Certificate, Keyring},
        keys::Keys,
    },
};
use ledger::Command;

impl Publisher {
    /// Tells the coordinator which keys sign this node's repositories, until the ledger here knows them.
    pub(super) async fn register(&self) {
        let own = match of(&self.shared).and_then(|keys| keys.certificates().map_err(|e| chain(&e))) {
            Ok(own) => Keyring::new(own).to_bytes(),
            Err(why) => return warn!(%why, "this node cannot sign repositories"),
        };
        let (id, bytes) = (self.shared.id, own.clone());
        let look = move |ledger: &ledger::Ledger| ledger.signers().any(|(n, known)| n == id && known == bytes);
        if self.decisions.view(look).await != Some(false) {
            return;
        }
        match self.desk.ask_coordinator(Request::Signer(Octets(own))).await {
            Ok(Response::Done) => info!("repository keys made known to the coordinators"),
            Ok(answer) => debug!(?answer, "repository keys not made known; it is tried again"),
            Err(error) => debug!(%error, "repository keys not made known; it is tried again"),
        }
    }

    /// Has everybody's keys published, once they are known: clients of this coordinator will trust the next one. This node's own
    /// are used as they are now, whoever leads.
    pub(super) async fn renew_keyrings(&mut self) {
        // Who cannot read its keys has said so when it registered them.
        let Ok(keys) = of(&self.shared) else { return };
        let others = self.signers_of_others().await;
        let mut stale = Vec::new();
        for (channel, repository) in &mut self.repositories {
            repository.sign_with(keys.clone());
            match repository.trust(others.clone()) {
                Ok(()) if repository.needs_keyring() => stale.push(channel.clone()),
                Ok(()) => {}
                Err(error) => warn!(%channel, error = %chain(&error), "keyring not renewed"),
            }
        }
        if Self::office(&self.shared, &self.decisions).is_err() {
            return;
        }
        for channel in stale {
            self.decisions.tell(Command::Resign { channel }).await;
        }
    }

    /// Gives the certificates of everybody else who may publish.
    pub(super) async fn signers_of_others(&self) -> Vec<Certificate> {
        let own = self.shared.id;
        let look = move |ledger: &ledger::Ledger| {
            let others = ledger.signers().filter(|(node, _)| *node != own);
            others.map(|(_, bytes)| bytes.to_vec()).collect::<Vec<_>>()
        };
        let known = self.decisions.view(look).await.unwrap_or_default();
        let read = known.iter().filter_map(|bytes| Keyring::read(bytes).ok());
        read.flat_map(|keyring| keyring.certificates().to_vec()).collect()
    }
}

/// Loads the keys of this node's repositories, or makes the first. A change whose grace is over ends here.
pub(super) fn of(shared: &Shared) -> Result<Keys, String> {
    let path = shared.home.repository_key();
    if !path.exists() {
        let name = format!("artel network {}", shared.policies().current().name);
        let created = Timestamp::from_millis(clock::now().as_secs() * 1000);
        let key = RepositoryKey::generate(&name, created).map_err(|e| chain(&e))?;
        key.save(&path).map_err(|e| chain(&e))?;
        info!(fingerprint = %key.fingerprint(), "repository key made");
        return Ok(key.into());
    }
    let keys = Keys::load(&path).map_err(|e| chain(&e))?;
    if !keys.is_over(clock::now()) {
        return Ok(keys);
    }
    let keys = Keys::finish(&path).map_err(|e| chain(&e))?;
    info!(fingerprint = %keys.lasting().fingerprint(), "the repository's next key signs alone now");
    Ok(keys)
}
