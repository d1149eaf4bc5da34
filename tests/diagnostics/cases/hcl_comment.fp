hosts web {
  host "localhost" { connection = local }
}

play "web" on hosts.web {
  // a folder
  directory "/srv/a"
}
