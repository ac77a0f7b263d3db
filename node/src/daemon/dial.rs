//! Blobs travel over the network's own streams: this joins the two modules, which do not know each other.

use protocol::NodeId;

use crate::{
    blobs::{Dial, DialError, Duplex},
    net::{Net, Purpose},
};

impl Dial for Net {
    async fn open(&self, node: NodeId) -> Result<Box<dyn Duplex>, DialError> {
        match Net::open(self, node, Purpose::Blobs).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => Err(DialError { node, source: Box::new(error) }),
        }
    }
}
