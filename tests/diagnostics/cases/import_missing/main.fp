import "roles/wbe.fp"
import "/etc/passwd"
import "../x.fp"
import folder

hosts web {
  host "localhost" { connection = local }
}

play "web" on hosts.web {
  web_node { a = 1 }
}
