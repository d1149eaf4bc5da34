# How a playbook should feel. The shape, not the letter: the grammar is yours to finish, and to make better.

import "env/{{ env }}.fp"                  # hosts, sizes and secrets of this environment: --env staging

network "web-lan" {
  mode    = macvlan                        # bridge | vxlan | host | nat | macvtap: the same block
  parent  = "eth0"
  subnet  = 10.88.8.0/24
  gateway = 10.88.8.254
  pool    = 10.88.8.10 - 10.88.8.200
  shim    = true                           # the host reaches its own containers
}

nodes web {                                # containers are inventory: plays and rollouts run over them
  count   = web_nodes                      # scaling out is this number
  on      = hosts.docker                   # spread evenly, kept where they are on a re-run
  network = "web-lan"
  name    = "web{{ node.address | octets(3, 4) }}"        # web08246
}

play "docker hosts" on hosts.docker {
  package ["docker.io", "nfs-common"]
  service "docker" { state = running  enabled = true }
  mount "/opt/share" { type = nfs  from = "store:/export/web"  options = ["ro"] }
}

play "images" on hosts.docker {
  image "fanli/base:12" {
    bootstrap = debian("bookworm", packages: ["apache2", "libapache2-mod-php", "supervisor", "cronolog"])
  }
  image "fanli/web:{{ release }}" {
    context = "images/web"                 # Dockerfile, binary/, cfg/, scripts/
    args    = { UID = 501 }
    keep    = 5
  }
}

role web_node(image: string, sites: list, memory: size = 512MiB) {
  home = "/data/containers/{{ node.name }}"

  for site in sites {
    directory "{{ home }}/weblogs/{{ site }}" { owner = 501  mode = 0755 }
  }
  directory "{{ home }}/webdata" { owner = 501  mode = 0775 }

  container node.name {
    image   = image
    memory  = memory
    mounts  = [
      "{{ home }}/weblogs"  -> "/data/weblogs",
      "{{ home }}/webdata"  -> "/usr/local/webdata",
      "{{ home }}/conf"     -> "/usr/local/apache2/conf" read_only,
      "/opt/share/fanliweb" -> "/opt/fanliweb" read_only,
    ]
    attach "web-lan" { address = node.address }
    healthy = http("http://{{ node.address }}/ping", within: 30s)
  }
}

play "nodes" on nodes.web batch 2 {
  web_node { image = "fanli/web:{{ release }}"  sites = ["www", "tuan", "zhide", "static"] }
}

rollout "apache configuration" on nodes.web {
  batches = [1, 25%, 100%]
  budget  = 0                              # failed nodes allowed in the whole run

  config "/data/containers/{{ node.name }}/conf" {
    from     = templates("apache2/")       # a whole directory; files that are no longer declared go
    validate = ["apachectl", "-t"]         # in a throw-away container of the node's own image
  }
  drain   = haproxy("lb", backend: "web", server: node.name)
  reload  = supervisor("apache2")
  healthy = http("http://{{ node.address }}/ping", within: 30s, times: 3)
  on_fail = rollback
}

logs "web logs" on nodes.web {
  path     = "/data/containers/{{ node.name }}/weblogs/*/*.log"
  compress = after(2h, with: zstd)
  ship     = rsync("store::weblogs/{{ node.name }}/")
  keep     = 7d
  floor    = 15%                           # free disk that must remain; the oldest shipped files go first
}
