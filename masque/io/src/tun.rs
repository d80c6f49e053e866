//! TUN devices with several queues, read and written in batches.
