hosts web {
  host facts.hostname { address = host.address }
}

play "web" on hosts.web {
  directory "/srv/a"
}
