//! One ed25519 key, two names: the network's [`NodeId`] and libp2p's `PeerId`.
//!
//! Only this folder knows the second. A peer whose key is not ed25519 has no `NodeId` and is not let in.

use ed25519_dalek::SigningKey;
use libp2p::{
    PeerId,
    identity::{Keypair, PublicKey, ed25519},
};
use protocol::NodeId;

/// The multihash code of "the bytes themselves": an ed25519 `PeerId` carries its key inline.
const IDENTITY: u64 = 0;

/// Gives libp2p the node's key.
pub(super) fn keypair(key: &SigningKey) -> Keypair {
    Keypair::ed25519_from_bytes(key.to_bytes()).expect("any 32 bytes are an ed25519 seed")
}

/// Gives the `PeerId` of a node; none when its 32 bytes are no ed25519 key.
pub(super) fn peer_of(node: NodeId) -> Option<PeerId> {
    let key = ed25519::PublicKey::try_from_bytes(node.as_bytes()).ok()?;
    Some(PublicKey::from(key).to_peer_id())
}

/// Gives the node behind a `PeerId`; none when its key is not ed25519.
pub(super) fn node_of(peer: &PeerId) -> Option<NodeId> {
    let hash = peer.as_ref();
    if hash.code() != IDENTITY {
        return None;
    }
    let key = PublicKey::try_decode_protobuf(hash.digest()).ok()?.try_into_ed25519().ok()?;
    Some(NodeId::from_bytes(key.to_bytes()))
}

/// Gives the end of an address that names a node: `/p2p/<PeerId>`; empty when its 32 bytes are no ed25519 key.
pub fn address_suffix(node: NodeId) -> String {
    peer_of(node).map(|peer| format!("/p2p/{peer}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_one_node_and_one_peer() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let node = NodeId::from_bytes(key.verifying_key().to_bytes());
        let peer = keypair(&key).public().to_peer_id();
        assert_eq!(peer_of(node), Some(peer));
        assert_eq!(node_of(&peer), Some(node));
        assert_eq!(node_of(&PeerId::random()), None, "a hashed key names no node");
    }
}
