//! `backend` and `loaded` with real balancers before real servers, under load. Needs haproxy, nginx and apache2.

mod haproxy;
pub mod ledger;
mod nginx;
mod others;
pub mod place;
mod proof;
