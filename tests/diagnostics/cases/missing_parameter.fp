hosts web {
  host "localhost" { connection = local }
}

play "web" on hosts.web {
  line "/etc/hosts"
  link "/srv/a"
  directory
}
