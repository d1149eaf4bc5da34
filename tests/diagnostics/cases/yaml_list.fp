hosts web {
  host "localhost" { connection = local }
}

play "web" on hosts.web {
  directory [
    - apache2
    - php
  ]
}
