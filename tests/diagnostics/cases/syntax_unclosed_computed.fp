hosts web {
  host "localhost" { connection = local }
}

play "web" on hosts.web {
  directory "/srv/{{ env }" { mode = 0755 }
}
