hosts web {
  host "localhost" { connection = local }
}

play "web" on hosts.web {
  for i in rang(3) {
    directory "/srv/{{ i }}"
  }
}
