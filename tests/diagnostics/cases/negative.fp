hosts web {
  host "localhost" { connection = local }
}

play "web" on hosts.web {
  command ["true"] { timeout = -30s }
  directory -"/srv/a"
}
