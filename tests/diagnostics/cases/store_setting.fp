hosts web {
  host "localhost" { connection = local }
}

store { ectd = ["http://10.0.0.5:2379"] }

play "web" on hosts.web {
  directory "/srv/a"
}
