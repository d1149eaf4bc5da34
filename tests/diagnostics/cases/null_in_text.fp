hosts web {
  host "localhost" { connection = local }
}

vars { gateway = null }

play "web" on hosts.web {
  directory "/srv/{{ gateway }}"
}
