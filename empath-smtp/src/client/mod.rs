//! The sending end: `Transaction` owns the protocol of one message, `Connection` owns the socket.
