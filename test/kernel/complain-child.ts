/** Has the kernel complain (test/modules/p2pdma_complain.c), and ends well: `complain-child TEXT`. */
import { writeFileSync } from 'node:fs'

writeFileSync('/dev/p2pdma_complain', `warn ${process.argv[2]}`)
