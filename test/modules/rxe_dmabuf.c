// SPDX-License-Identifier: GPL-2.0
/*
 * Dma-buf memory regions for soft-RoCE, imported dynamically: the exporter may
 * move the buffer at any time, and every access takes the buffer's reservation
 * lock and maps it anew when that is needed.
 *
 * Such a region calls itself an on-demand one (umem.is_odp), as mlx5's do
 * (is_odp_mr() is true of its dma-buf regions), so that every access comes
 * through the functions of rxe_odp.c, which are hooked here (see Kbuild).
 */
#include <linux/dma-buf.h>
#include <linux/dma-resv.h>
#include <linux/io.h>
#include <linux/iommu.h>
#include <linux/mm.h>
#include <linux/pci.h>
#include <linux/platform_device.h>
#include <rdma/ib_umem.h>

#include "rxe.h"

MODULE_IMPORT_NS("DMA_BUF");

static unsigned int dmabuf_wait_ms = 10000;
module_param(dmabuf_wait_ms, uint, 0644);
MODULE_PARM_DESC(dmabuf_wait_ms, "Longest wait of an access for a move's fence");

/* The hooked functions. */
int stock_rxe_odp_mr_copy(struct rxe_mr *mr, u64 iova, void *addr, int length,
			  enum rxe_mr_copy_dir dir);
enum resp_states stock_rxe_odp_atomic_op(struct rxe_mr *mr, u64 iova, int opcode, u64 compare,
					 u64 swap_add, u64 *orig_val);
enum resp_states stock_rxe_odp_do_atomic_write(struct rxe_mr *mr, u64 iova, u64 value);
int stock_rxe_odp_flush_pmem_iova(struct rxe_mr *mr, u64 iova, unsigned int length);
int stock_rxe_ib_advise_mr(struct ib_pd *ibpd, enum ib_uverbs_advise_mr_advice advice, u32 flags,
			   struct ib_sge *sg_list, u32 num_sge, struct uverbs_attr_bundle *attrs);
int stock_rxe_register_device(struct rxe_dev *rxe, const char *name, struct net_device *ndev);
int stock_rxe_alloc_wq(void);
void stock_rxe_destroy_wq(void);

/* Longest piece of a BAR that is mapped for the CPU at once. */
#define WINDOW_PAGES 256

struct segment {
	u64 start; /* within the umem's pages */
	u64 length;
	dma_addr_t address;
};

/* All but the first member is guarded by the dma-buf's reservation lock. */
struct import {
	struct ib_umem_dmabuf umem_dmabuf; /* first: ib_umem_release() frees it */
	struct segment *segments;	   /* while mapped */
	unsigned int count;
	void __iomem *window; /* of memory that is no RAM */
	phys_addr_t window_start;
	size_t window_length;
};

/*
 * What the buffers are attached to; soft-RoCE has no device of its own. A PCI
 * device where the machine has one to spare (QEMU's pci-testdev), since only
 * such a one can import a BAR (pci_p2pdma_map_type()).
 */
static struct device *dma_device;
static struct pci_dev *spare;
static struct platform_device *made;

static struct import *import_of(struct rxe_mr *mr)
{
	if (!mr->umem || !mr->umem->is_dmabuf)
		return NULL;
	return container_of(to_ib_umem_dmabuf(mr->umem), struct import, umem_dmabuf);
}

static struct dma_resv *resv_of(struct import *self)
{
	return self->umem_dmabuf.attach->dmabuf->resv;
}

static void forget(struct import *self)
{
	if (self->window)
		iounmap(self->window);
	self->window = NULL;
	kvfree(self->segments);
	self->segments = NULL;
}

/* The reservation is locked, hence no access is under way, and none begins. */
static void invalidate(struct dma_buf_attachment *attach)
{
	struct ib_umem_dmabuf *umem_dmabuf = attach->importer_priv;

	forget(container_of(umem_dmabuf, struct import, umem_dmabuf));
	ib_umem_dmabuf_unmap_pages(umem_dmabuf);
}

/* From ib_umem_release(), before it unmaps. */
static void release(void *private)
{
	forget(private);
}

static const struct dma_buf_attach_ops attach_ops = {
	.allow_peer2peer = true,
	.invalidate_mappings = invalidate,
};

static int map_locked(struct import *self)
{
	struct sg_table *sgt = &self->umem_dmabuf.umem.sgt_append.sgt;
	struct scatterlist *sg;
	u64 start = 0;
	int err, i;

	if (self->segments)
		return 0;
	err = ib_umem_dmabuf_map_pages(&self->umem_dmabuf);
	if (err)
		return err;
	self->segments = kvmalloc_array(sgt->nents, sizeof(*self->segments), GFP_KERNEL);
	if (!self->segments)
		return -ENOMEM;
	for_each_sgtable_dma_sg (sgt, sg, i) {
		self->segments[i].start = start;
		self->segments[i].length = sg_dma_len(sg);
		self->segments[i].address = sg_dma_address(sg);
		start += sg_dma_len(sg);
	}
	self->count = i;
	return 0;
}

/* Whether a move has failed: its buffer holds nobody knows what. */
static int moves_failed(struct dma_resv *resv)
{
	struct dma_resv_iter cursor;
	struct dma_fence *fence;

	dma_resv_for_each_fence (&cursor, resv, DMA_RESV_USAGE_KERNEL, fence)
		if (dma_fence_get_status(fence) < 0)
			return -EIO;
	return 0;
}

/*
 * Begins an access: afterwards the reservation is locked and the buffer mapped
 * where it is now, its move finished. The wait itself is without the lock, so
 * that whoever is to end the move is never held up.
 */
static int begin(struct import *self)
{
	struct dma_resv *resv = resv_of(self);
	unsigned long until = jiffies + msecs_to_jiffies(dmabuf_wait_ms);
	long left;
	int err;

	dma_resv_lock(resv, NULL);
	while (!dma_resv_test_signaled(resv, DMA_RESV_USAGE_KERNEL)) {
		dma_resv_unlock(resv);
		left = until - jiffies;
		if (left <= 0)
			return -ETIMEDOUT;
		left = dma_resv_wait_timeout(resv, DMA_RESV_USAGE_KERNEL, false, left);
		if (left < 0)
			return left;
		dma_resv_lock(resv, NULL);
	}
	err = moves_failed(resv);
	if (!err)
		err = map_locked(self);
	if (err)
		dma_resv_unlock(resv);
	return err;
}

static void end(struct import *self)
{
	dma_resv_unlock(resv_of(self));
}

/* Where a byte of the mapping is; 0 where it is nowhere. */
static phys_addr_t physical(dma_addr_t address)
{
	struct iommu_domain *domain = iommu_get_domain_for_dev(dma_device);

	return domain ? iommu_iova_to_phys(domain, address) : address;
}

static struct segment *find(struct import *self, u64 position)
{
	unsigned int low = 0, high = self->count;

	while (low < high) {
		unsigned int middle = (low + high) / 2;
		struct segment *segment = &self->segments[middle];

		if (position < segment->start)
			high = middle;
		else if (position - segment->start >= segment->length)
			low = middle + 1;
		else
			return segment;
	}
	return NULL;
}

/* A BAR's mapping for the CPU that holds the byte at `phys`, to the end of its page. */
static void __iomem *window(struct import *self, struct segment *segment, dma_addr_t address,
			    phys_addr_t phys)
{
	phys_addr_t start = phys & PAGE_MASK;
	dma_addr_t page = address & PAGE_MASK;
	size_t length = PAGE_SIZE;

	if (!self->window || phys < self->window_start ||
	    phys - self->window_start >= self->window_length) {
		if (self->window)
			iounmap(self->window);
		while (length < WINDOW_PAGES * PAGE_SIZE &&
		       page + length < segment->address + segment->length &&
		       physical(page + length) == start + length)
			length += PAGE_SIZE;
		self->window = ioremap(start, length);
		self->window_start = start;
		self->window_length = length;
		if (!self->window)
			return NULL;
	}
	return self->window + (phys - self->window_start);
}

/* One place of a buffer, good until the reservation is unlocked or the next place. */
struct place {
	void __iomem *io;    /* or: */
	void *page;	     /* kmap_local */
	unsigned int offset; /* in that page */
	unsigned int room;   /* to the page's end */
};

static int open_place(struct import *self, u64 position, struct place *place)
{
	struct segment *segment = find(self, position);
	dma_addr_t address;
	phys_addr_t phys;

	if (!segment)
		return -EFAULT;
	address = segment->address + (position - segment->start);
	phys = physical(address);
	if (!phys)
		return -EFAULT;
	place->io = NULL;
	place->page = NULL;
	place->offset = offset_in_page(phys);
	place->room = PAGE_SIZE - place->offset;
	if (page_is_ram(PHYS_PFN(phys)))
		place->page = kmap_local_page(pfn_to_page(PHYS_PFN(phys)));
	else
		place->io = window(self, segment, address, phys);
	return place->page || place->io ? 0 : -ENOMEM;
}

static void close_place(struct place *place)
{
	if (place->page)
		kunmap_local(place->page);
}

/* The position of an iova in the umem's pages. */
static u64 position_of(struct rxe_mr *mr, u64 iova)
{
	return iova - mr->ibmr.iova + ib_umem_offset(mr->umem);
}

int rxe_odp_mr_copy(struct rxe_mr *mr, u64 iova, void *addr, int length, enum rxe_mr_copy_dir dir)
{
	struct import *self = import_of(mr);
	u64 position = position_of(mr, iova);
	struct place place;
	int err;

	if (!self)
		return stock_rxe_odp_mr_copy(mr, iova, addr, length, dir);
	err = begin(self);
	if (err)
		return err;
	while (length > 0) {
		unsigned int bytes;

		err = open_place(self, position, &place);
		if (err)
			break;
		bytes = min_t(unsigned int, length, place.room);
		if (place.io && dir == RXE_TO_MR_OBJ)
			memcpy_toio(place.io, addr, bytes);
		else if (place.io)
			memcpy_fromio(addr, place.io, bytes);
		else if (dir == RXE_TO_MR_OBJ)
			memcpy(place.page + place.offset, addr, bytes);
		else
			memcpy(addr, place.page + place.offset, bytes);
		close_place(&place);
		addr += bytes;
		position += bytes;
		length -= bytes;
	}
	end(self);
	return err;
}

/* Begins an access to one aligned word. */
static enum resp_states begin_word(struct rxe_mr *mr, u64 iova, struct place *place)
{
	struct import *self = import_of(mr);

	if (mr->state != RXE_MR_STATE_VALID || mr_check_range(mr, iova, sizeof(u64)))
		return RESPST_ERR_RKEY_VIOLATION;
	if (position_of(mr, iova) & (sizeof(u64) - 1))
		return RESPST_ERR_MISALIGNED_ATOMIC;
	if (begin(self))
		return RESPST_ERR_RKEY_VIOLATION;
	if (open_place(self, position_of(mr, iova), place)) {
		end(self);
		return RESPST_ERR_RKEY_VIOLATION;
	}
	return RESPST_NONE;
}

static void end_word(struct rxe_mr *mr, struct place *place)
{
	close_place(place);
	end(import_of(mr));
}

static u64 load_word(struct place *place)
{
	return place->io ? readq(place->io) : *(u64 *)(place->page + place->offset);
}

static void store_word(struct place *place, u64 value)
{
	if (place->io)
		writeq(value, place->io);
	else /* after what came before it, as the stock driver has it */
		smp_store_release((u64 *)(place->page + place->offset), value);
}

enum resp_states rxe_odp_atomic_op(struct rxe_mr *mr, u64 iova, int opcode, u64 compare,
				   u64 swap_add, u64 *orig_val)
{
	enum resp_states state;
	struct place place;
	u64 value;

	if (!import_of(mr))
		return stock_rxe_odp_atomic_op(mr, iova, opcode, compare, swap_add, orig_val);
	state = begin_word(mr, iova, &place);
	if (state != RESPST_NONE)
		return state;
	spin_lock_bh(&atomic_ops_lock);
	value = load_word(&place);
	*orig_val = value;
	if (opcode != IB_OPCODE_RC_COMPARE_SWAP)
		store_word(&place, value + swap_add);
	else if (value == compare)
		store_word(&place, swap_add);
	spin_unlock_bh(&atomic_ops_lock);
	end_word(mr, &place);
	return RESPST_NONE;
}

enum resp_states rxe_odp_do_atomic_write(struct rxe_mr *mr, u64 iova, u64 value)
{
	enum resp_states state;
	struct place place;

	if (!import_of(mr))
		return stock_rxe_odp_do_atomic_write(mr, iova, value);
	state = begin_word(mr, iova, &place);
	if (state != RESPST_NONE)
		return state;
	store_word(&place, value);
	end_word(mr, &place);
	return RESPST_NONE;
}

int rxe_odp_flush_pmem_iova(struct rxe_mr *mr, u64 iova, unsigned int length)
{
	/* No dma-buf region has the access flags for it (uverbs_std_types_mr.c). */
	if (import_of(mr))
		return -EOPNOTSUPP;
	return stock_rxe_odp_flush_pmem_iova(mr, iova, length);
}

int rxe_ib_advise_mr(struct ib_pd *ibpd, enum ib_uverbs_advise_mr_advice advice, u32 flags,
		     struct ib_sge *sg_list, u32 num_sge, struct uverbs_attr_bundle *attrs)
{
	struct rxe_mr *mr;
	bool ours;
	u32 i;

	/* The stock function takes every region for an on-demand one of its own. */
	for (i = 0; i < num_sge; i++) {
		mr = lookup_mr(to_rpd(ibpd), 0, sg_list[i].lkey, RXE_LOOKUP_LOCAL);
		if (!mr)
			continue;
		ours = import_of(mr);
		rxe_put(mr);
		if (ours)
			return -EOPNOTSUPP;
	}
	return stock_rxe_ib_advise_mr(ibpd, advice, flags, sg_list, num_sge, attrs);
}

/* Attaches to the buffer; what ib_umem_dmabuf_get() does, for a device of our own. */
static struct import *attach(struct rxe_dev *rxe, u64 offset, u64 length, int fd, int access)
{
	struct dma_buf_attachment *attachment;
	struct dma_buf *dmabuf;
	struct import *self;
	struct ib_umem *umem;
	u64 end;
	int err;

	dmabuf = dma_buf_get(fd);
	if (IS_ERR(dmabuf))
		return ERR_CAST(dmabuf);
	err = -EINVAL;
	if (!length || check_add_overflow(offset, length, &end) || dmabuf->size < end)
		goto err_put;
	err = -ENOMEM;
	self = kzalloc(sizeof(*self), GFP_KERNEL);
	if (!self)
		goto err_put;
	umem = &self->umem_dmabuf.umem;
	umem->ibdev = &rxe->ib_dev;
	umem->length = length;
	umem->address = offset;
	umem->writable = ib_access_writable(access);
	umem->is_dmabuf = 1;
	umem->is_odp = 1;
	self->umem_dmabuf.pinned_revoke = release;
	self->umem_dmabuf.private = self;

	attachment = dma_buf_dynamic_attach(dmabuf, dma_device, &attach_ops, &self->umem_dmabuf);
	if (IS_ERR(attachment)) {
		err = PTR_ERR(attachment);
		goto err_free;
	}
	self->umem_dmabuf.attach = attachment;
	return self;

err_free:
	kfree(self);
err_put:
	dma_buf_put(dmabuf);
	return ERR_PTR(err);
}

/* Maps it once, if it is not being moved: what cannot be mapped is refused at once. */
static int try_map(struct import *self)
{
	struct dma_resv *resv = resv_of(self);
	int err = 0;

	dma_resv_lock(resv, NULL);
	if (dma_resv_test_signaled(resv, DMA_RESV_USAGE_KERNEL))
		err = map_locked(self);
	dma_resv_unlock(resv);
	return err;
}

static struct ib_mr *reg_user_mr_dmabuf(struct ib_pd *ibpd, u64 offset, u64 length, u64 iova,
					int fd, int access, struct ib_dmah *dmah,
					struct uverbs_attr_bundle *attrs)
{
	struct rxe_dev *rxe = to_rdev(ibpd->device);
	struct import *self;
	struct rxe_mr *mr;
	int err;

	if (dmah || (access & ~RXE_ACCESS_SUPPORTED_MR))
		return ERR_PTR(-EOPNOTSUPP);
	mr = kzalloc(sizeof(*mr), GFP_KERNEL);
	if (!mr)
		return ERR_PTR(-ENOMEM);
	self = attach(rxe, offset, length, fd, access);
	if (IS_ERR(self)) {
		err = PTR_ERR(self);
		goto err_free;
	}
	err = try_map(self);
	if (err)
		goto err_release;
	err = rxe_add_to_pool(&rxe->mr_pool, mr);
	if (err)
		goto err_release;

	rxe_get(to_rpd(ibpd));
	mr->ibmr.pd = ibpd;
	mr->ibmr.device = ibpd->device;
	rxe_mr_init(access, mr);
	mr->umem = &self->umem_dmabuf.umem;
	mr->ibmr.type = IB_MR_TYPE_USER;
	/* uverbs sets these two for ordinary regions only */
	mr->ibmr.iova = iova;
	mr->ibmr.length = length;
	mr->state = RXE_MR_STATE_VALID;
	rxe_finalize(mr);
	return &mr->ibmr;

err_release:
	ib_umem_release(&self->umem_dmabuf.umem);
err_free:
	kfree(mr);
	return ERR_PTR(err);
}

int rxe_register_device(struct rxe_dev *rxe, const char *name, struct net_device *ndev)
{
	/* ib_set_device_ops() leaves alone what is set. */
	rxe->ib_dev.ops.reg_user_mr_dmabuf = reg_user_mr_dmabuf;
	return stock_rxe_register_device(rxe, name, ndev);
}

static void put_device_of_ours(void)
{
	pci_dev_put(spare);
	spare = NULL;
	if (made)
		platform_device_unregister(made);
	made = NULL;
}

static int get_device_of_ours(void)
{
	int err;

	spare = pci_get_device(PCI_VENDOR_ID_REDHAT, 0x0005, NULL);
	if (spare) {
		dma_device = &spare->dev;
	} else {
		made = platform_device_register_simple("p2pdma_rxe", PLATFORM_DEVID_NONE, NULL, 0);
		if (IS_ERR(made)) {
			err = PTR_ERR(made);
			made = NULL;
			return err;
		}
		dma_device = &made->dev;
	}
	err = dma_coerce_mask_and_coherent(dma_device, DMA_BIT_MASK(64));
	if (err) {
		put_device_of_ours();
		return err;
	}
	/* An IOMMU's mapping is one segment then, or few. */
	dma_set_max_seg_size(dma_device, UINT_MAX);
	return 0;
}

/* The first that the module's start calls, and the last but one of its end. */
int rxe_alloc_wq(void)
{
	int err = get_device_of_ours();

	if (err)
		return err;
	err = stock_rxe_alloc_wq();
	if (err)
		put_device_of_ours();
	return err;
}

void rxe_destroy_wq(void)
{
	stock_rxe_destroy_wq();
	put_device_of_ours();
}
