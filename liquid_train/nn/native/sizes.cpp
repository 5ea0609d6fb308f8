#include "cfc.h"
#include "ltc.h"
#include "stream.h"

// What the structures take up, for whoever fills them.
extern "C" void liquid_sizes(int64_t* sizes) {
  sizes[0] = sizeof(CfC);
  sizes[1] = sizeof(LTC);
  sizes[2] = sizeof(StreamCell);
  sizes[3] = sizeof(CfCStream);
  sizes[4] = sizeof(LTCStream);
}
