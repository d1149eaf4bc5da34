hosts web {
  host "localhost" { connection = local }
}

varz {
  a = 1
}

play "web" on hosts.web {
  directory "/srv/{{ a }}"
}
